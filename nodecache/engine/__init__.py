"""The miss path as state machines: octets, ``now`` and random numbers in, actions out."""
