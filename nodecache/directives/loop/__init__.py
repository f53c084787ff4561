"""The ``loop`` directive."""
