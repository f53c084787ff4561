"""The ``loadbalance`` directive."""
