"""Makes ``python -m bench`` the side-by-side run."""

from __future__ import annotations

import sys

from bench.run import main

sys.exit(main())
