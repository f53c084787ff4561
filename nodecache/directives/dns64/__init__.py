"""The ``dns64`` directive."""
