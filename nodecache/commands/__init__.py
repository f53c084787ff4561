"""The commands that stand in place of flags: ``check`` and ``explain``. They serve nothing."""
