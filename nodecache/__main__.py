"""``python -m nodecache``."""

from __future__ import annotations

import sys

from nodecache.keeper import main

if __name__ == "__main__":
    sys.exit(main())
