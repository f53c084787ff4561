"""The ``pprof`` directive."""
