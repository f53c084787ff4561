"""Questions on their way to upstreams: octets, ``now`` and random numbers in, actions out."""
