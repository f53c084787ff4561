"""What the environment says of the upstream Service, and whom to ask otherwise."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nodecache.config.corefile import Reader
from nodecache.config.model import Address
from nodecache.config.service import describe_missing, find_service_ip, service_variable


def test_variable_is_named_as_kubelet_names_it() -> None:
    assert service_variable("kube-dns-upstream") == "KUBE_DNS_UPSTREAM_SERVICE_HOST"


@pytest.mark.parametrize(
    ("value", "ip"),
    [("10.0.0.1", "10.0.0.1"), ("FD00::1", "fd00::1"), ("", ""), ("None", ""), ("10.0.0.1 x", "")],
)
def test_address_comes_from_the_environment(value: str, ip: str) -> None:
    assert find_service_ip("my-dns", {"MY_DNS_SERVICE_HOST": value}) == ip
    assert find_service_ip("other", {"MY_DNS_SERVICE_HOST": value}) == ""


def test_kube_dns_is_asked_first_then_the_nameservers_of_the_node(
    make_reader: Callable[..., Reader],
) -> None:
    reader = make_reader({"/etc/resolv.conf": "nameserver 10.9.9.9\nnameserver 10.96.0.10\n"})
    missing = describe_missing("x", {"KUBE_DNS_SERVICE_HOST": "10.96.0.10"}, reader)
    assert missing.servers == (Address("10.96.0.10", 53), Address("10.9.9.9", 53))


def test_without_kube_dns_and_resolv_conf_nobody_is_asked(
    make_reader: Callable[..., Reader],
) -> None:
    assert describe_missing("x", {}, make_reader({})).servers == ()


@pytest.mark.parametrize(
    ("namespace", "used"),
    [("dns", "dns"), ("", "kube-system"), ("A b", "kube-system"), ("x" * 64, "kube-system")],
)
def test_namespace_is_that_of_the_pod(
    namespace: str, used: str, make_reader: Callable[..., Reader]
) -> None:
    assert describe_missing("x", {"POD_NAMESPACE": namespace}, make_reader({})).namespace == used
    assert describe_missing("x", {}, make_reader({})).namespace == "kube-system"
