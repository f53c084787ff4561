"""What a pod's author may write into its dnsConfig."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.webhook.table import CLUSTER, LOCAL

# Beside anything, what is ours.
names = st.text("abc.:\N{SNOWMAN}\r", min_size=1, max_size=300) | st.sampled_from(
    ["cluster.local", "svc.cluster.local", LOCAL, CLUSTER, "fd00::a", "ndots", "timeout"]
)
options = st.fixed_dictionaries({"name": names}, optional={"value": names})
configs = st.fixed_dictionaries(
    {},
    optional={
        "nameservers": st.lists(names, max_size=4),
        "searches": st.lists(names, max_size=40),
        "options": st.lists(options, max_size=4),
    },
)
