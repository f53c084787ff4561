"""The ``log`` directive."""
