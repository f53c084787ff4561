from __future__ import annotations

import os
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

# Test modules share code as tests.strategies and tests.reference.
sys.path.insert(0, str(Path(__file__).parent.parent))

# `make test-compiled` has the same tests run on the package that `make compile` made.
if "NODECACHE_FROM" in os.environ:
    sys.path.insert(0, os.environ["NODECACHE_FROM"])

# No deadline: the machines that run this are shared, and no test asserts speed.
settings.register_profile("dev", deadline=None)
settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,  # a run fails because of its change, not of its luck
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ci" if os.environ.get("CI") else "dev")
