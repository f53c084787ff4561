"""The ``whoami`` directive."""
