"""The life of a process: the keeper, its worker, and what one daemon hands over to the next."""
