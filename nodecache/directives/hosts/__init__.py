"""The ``hosts`` directive."""
