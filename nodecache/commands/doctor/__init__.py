"""``nodecache doctor``: what is wrong with DNS on this node or in a pod, likeliest cause first.

Looks (``look_*.py``) touch the machine, each bounded in time; what they saw is a value
(``seen.py``), and judging it (``judge.py``) is pure. ``catalogue.py`` has every finding there is.
"""
