"""The upstream Service: where its address is written, and who else may know it.

The kubelet puts the addresses of Services that exist when a pod starts into its environment; for
one that is created later, a cluster's own DNS has to be asked. Pure; asks nobody itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from nodecache.config.corefile import Reader
from nodecache.config.model import Address, MissingService
from nodecache.config.resolvconf import parse_nameservers
from nodecache.config.values import parse_ip
from nodecache.limits import PORT

_RESOLV_CONF = "/etc/resolv.conf"
CLUSTER_DNS = "kube-dns"
_NAMESPACE = "kube-system"  # where the manifests put node-local DNS and cluster DNS
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def service_variable(name: str) -> str:
    """Returns the environment variable in which a pod finds the Service's address."""
    return name.upper().replace("-", "_") + "_SERVICE_HOST"


def find_service_ip(name: str, environ: Mapping[str, str]) -> str:
    """Returns the Service's address in normal form, "" if the environment has none.

    A headless Service has "None" for its address, and counts as one without.
    """
    try:
        return parse_ip(environ.get(service_variable(name), ""))
    except ValueError:
        return ""


def describe_missing(name: str, environ: Mapping[str, str], reader: Reader) -> MissingService:
    """Returns what is needed to look for the Service: its full name, and whom to ask.

    Asked are the Service kube-dns and the nameservers of /etc/resolv.conf. Our own addresses are
    not left out: in iptables mode kube-dns is one of them, and a query to it reaches cluster DNS
    as long as our rules are not in force. Once they are, we ask ourselves, and get REFUSED.
    """
    namespace = environ.get("POD_NAMESPACE", "")
    if not _LABEL.fullmatch(namespace):
        namespace = _NAMESPACE
    cluster_dns = find_service_ip(CLUSTER_DNS, environ)
    hosts = [*([cluster_dns] if cluster_dns else []), *_resolv_conf_hosts(reader)]
    servers = tuple(Address(host, int(PORT.default)) for host in dict.fromkeys(hosts))
    return MissingService(name, namespace, service_variable(name), servers)


def _resolv_conf_hosts(reader: Reader) -> list[str]:
    try:
        return parse_nameservers(reader.read_text(_RESOLV_CONF))[0]
    except (OSError, ValueError):
        return []
