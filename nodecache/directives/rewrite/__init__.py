"""The ``rewrite`` directive."""
