"""How the stock directives are written: those that a server block itself is made of."""
