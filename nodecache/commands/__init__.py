"""The commands that stand in place of flags: ``check``, ``explain`` and ``cleanup``.

They serve nothing.
"""
