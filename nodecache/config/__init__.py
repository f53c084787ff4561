"""From flags and files to one frozen Config."""
