"""Directives with a folder of their own, and the one table of all directives."""
