from __future__ import annotations

import json
from dataclasses import replace

import pytest

from nodecache.config.node import Backend, NodePlan


@pytest.mark.parametrize(
    ("addresses", "redirected"),
    [
        ((), ()),
        (("169.254.20.10",), ()),
        (("169.254.20.10", "10.96.0.10"), ("10.96.0.10",)),
        (("169.254.20.10", "fd00::a"), ()),
        (
            ("169.254.20.10", "10.96.0.10", "fd00::a", "fd00:96::10"),
            ("10.96.0.10", "fd00:96::10"),
        ),
    ],
)
def test_first_address_of_each_family_is_the_local_one(
    addresses: tuple[str, ...], redirected: tuple[str, ...]
) -> None:
    assert NodePlan("dns0", addresses).redirected == redirected


def test_plan_survives_the_way_to_the_tool() -> None:
    plan = NodePlan("dns0", ("10.0.0.1", "::1"), 5353, 8081, Backend.IPTABLES_NFT, False, True)
    plan = replace(plan, cluster_dns=("10.96.0.10", "fd96::10"), zone=54, unbound=("::1",))
    assert NodePlan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"interface": "a"}',
        json.dumps({**json.loads(NodePlan("a", ()).to_json()), "backend": "none"}),
        json.dumps({**json.loads(NodePlan("a", ()).to_json()), "addresses": 7}),
        json.dumps({**json.loads(NodePlan("a", ()).to_json()), "more": 7}),
    ],
)
def test_what_is_no_plan_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        NodePlan.from_json(text)
