"""The chart speaks the webhook's language: the args that it renders mean its values."""

from __future__ import annotations

from typing import Any

import pytest

from nodecache.webhook.flags import WebhookFlags, injection_of, parse_webhook_flags
from nodecache.webhook.model import Injection
from tests.deploy.helm import rendered


def flags_of(**values: Any) -> WebhookFlags:
    """Returns what the container of the chart's Deployment reads from its args."""
    injection = {"mode": "webhook", **values.pop("injection", {})}
    objects = rendered({"injection": injection, **values})
    [deployment] = [found for found in objects if found["kind"] == "Deployment"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    command, *words = container["args"]
    environ = {entry["name"]: "kube-system" for entry in container["env"]}
    flags, faults = parse_webhook_flags(words, environ)
    assert (command, faults) == ("webhook", [])
    return flags


def test_defaults_of_the_chart_are_those_of_the_webhook() -> None:
    flags = flags_of()
    assert injection_of(flags) == Injection(("169.254.20.10",), ("10.96.0.10",))
    assert (flags.secret, flags.service) == ("nodecache-webhook-tls", "nodecache-webhook")
    assert (flags.configuration, flags.namespace) == ("nodecache-webhook", "kube-system")
    assert (flags.listen.port, flags.metrics_listen) == (8443, WebhookFlags().metrics_listen)


def test_values_of_the_injection_reach_the_webhook() -> None:
    injection = {"ndots": 2, "attempts": 3, "timeout": 4, "searches": ["node.example"]}
    found = injection_of(flags_of(injection=injection, config={"dnsDomain": "k8s.corp"}))
    assert (found.ndots, found.attempts, found.timeout) == (2, 3, 4)
    assert (found.searches, found.domain) == (("node.example",), "k8s.corp")


@pytest.mark.parametrize("certificates", ["cert-manager", "secret"])
def test_certificates_of_others_are_read_from_the_mounted_secret(certificates: str) -> None:
    webhook: dict[str, Any] = {"certificates": certificates}
    if certificates == "secret":
        webhook |= {"caBundle": "x"}
    flags = flags_of(webhook=webhook)
    assert flags.secret == ""
    assert (flags.certificate_file, flags.key_file) == ("/tls/tls.crt", "/tls/tls.key")
