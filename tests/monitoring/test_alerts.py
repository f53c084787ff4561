"""Each alert fires on what it is about, none on a healthy fleet, and each has its runbook."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from daemonset.monitoring import alerts
from daemonset.monitoring.alerts import ALERTS, RUNBOOKS, Severity
from tests.daemon.processes import ROOT
from tests.monitoring.prometheus import promtool

_JOB = 'job="node-local-dns", instance="node1:9253"'
_HOOK = 'job="nodecache-webhook", instance="10.244.0.9:9253"'
_POD = 'namespace="kube-system", pod="node-local-dns-x7k2p"'
_LAG = f"nodecache_loop_lag_seconds_bucket{{{_JOB}, le="
_BUCKET = f'coredns_dns_request_duration_seconds_bucket{{{_JOB}, zone=".", le='

# Series -> values a minute apart, as promtool has them: "0+60x60" begins with 0 and adds 60.
HEALTHY = {
    f"up{{{_JOB}}}": "1x60",
    f'coredns_dns_responses_total{{{_JOB}, rcode="NOERROR"}}': "0+6000x60",
    f'coredns_dns_responses_total{{{_JOB}, rcode="SERVFAIL"}}': "0+6x60",
    f'{_BUCKET}"0.001"}}': "0+5940x60",
    f'{_BUCKET}"2.048"}}': "0+6000x60",
    f'{_BUCKET}"+Inf"}}': "0+6000x60",
    f"nodecache_stale_total{{{_JOB}}}": "0+6x60",
    f"nodecache_shed_total{{{_JOB}}}": "0x60",
    f"nodecache_receive_queue_drops_total{{{_JOB}}}": "5x60",
    f'{_LAG}"0.001"}}': "0+59x60",
    f'{_LAG}"0.256"}}': "0+60x60",
    f'{_LAG}"+Inf"}}': "0+60x60",
    f"coredns_forward_healthcheck_broken_total{{{_JOB}}}": "9x60",
    f'coredns_nodecache_setup_errors_total{{{_JOB}, errortype="iptables"}}': "0x60",
    f"nodecache_redirect{{{_JOB}}}": "1x60",
    f"nodecache_fallback_seconds_total{{{_JOB}}}": "3x60",
    f"nodecache_worker_restarts_total{{{_JOB}}}": "1x60",
    f"coredns_reload_failed_total{{{_JOB}}}": "1x60",
    f"nodecache_config_last_good{{{_JOB}}}": "0x60",
    f"coredns_panics_total{{{_JOB}}}": "0x60",
    f'kube_pod_info{{{_POD}, created_by_kind="DaemonSet", created_by_name="node-local-dns"}}':
        "1x60",
    f'kube_pod_status_phase{{{_POD}, phase="Pending"}}': "0x60",
    f'kube_pod_status_phase{{{_POD}, phase="Running"}}': "1x60",
    'apiserver_admission_webhook_fail_open_count{name="inject.nodecache.io", type="admit"}': "4x60",
    'apiserver_admission_webhook_fail_open_count{name="other.example", type="admit"}': "0+1x60",
    f"nodecache_webhook_certificate_expiry_timestamp_seconds{{{_HOOK}}}": f"{90 * 86400}x60",
}  # fmt: skip

# Alert -> what is otherwise when it fires; None takes a series away.
FAULTS: dict[str, dict[str, str | None]] = {
    "NodecacheAbsent": {f"up{{{_JOB}}}": None},
    "NodecacheDown": {f"up{{{_JOB}}}": "1x10 0x50"},
    "NodecacheServfail": {
        f'coredns_dns_responses_total{{{_JOB}, rcode="SERVFAIL"}}': "0+600x60",
    },
    "NodecacheSlow": {f'{_BUCKET}"0.001"}}': "0+5000x60"},
    "NodecacheServingStale": {f"nodecache_stale_total{{{_JOB}}}": "0+3000x60"},
    "NodecacheShedding": {f"nodecache_shed_total{{{_JOB}}}": "0+120x60"},
    "NodecacheReceiveQueueDrops": {
        f"nodecache_receive_queue_drops_total{{{_JOB}}}": "0+120x60",
    },
    "NodecacheLoopLag": {f'{_LAG}"0.001"}}': "0+40x60"},
    "NodecacheUpstreamsDown": {
        f"coredns_forward_healthcheck_broken_total{{{_JOB}}}": "0+6x60",
    },
    "NodecacheSetupErrors": {
        # Counted before anybody looked, as at the start of a pod.
        f'coredns_nodecache_setup_errors_total{{{_JOB}, errortype="iptables"}}': "_x50 1x10",
    },
    "NodecacheRedirectMissing": {f"nodecache_redirect{{{_JOB}}}": "0x60"},
    "NodecacheFallback": {f"nodecache_fallback_seconds_total{{{_JOB}}}": "0+1x60"},
    "NodecacheRestarting": {f"nodecache_worker_restarts_total{{{_JOB}}}": "0+1x60"},
    "NodecacheRolloutStuck": {
        f'kube_pod_status_phase{{{_POD}, phase="Pending"}}': "1x60",
        f'kube_pod_status_phase{{{_POD}, phase="Running"}}': "0x60",
    },
    "NodecacheReloadFailed": {f"coredns_reload_failed_total{{{_JOB}}}": "1x50 2x10"},
    "NodecacheLastGoodConfiguration": {f"nodecache_config_last_good{{{_JOB}}}": "1x60"},
    "NodecachePanics": {f"coredns_panics_total{{{_JOB}}}": "0x50 1x10"},
    "NodecacheWebhookFailOpen": {
        'apiserver_admission_webhook_fail_open_count{name="inject.nodecache.io", type="admit"}':
            "0x55 2x5",
    },
    "NodecacheWebhookCertificateExpiring": {
        f"nodecache_webhook_certificate_expiry_timestamp_seconds{{{_HOOK}}}": f"{5 * 86400}x60",
    },
}  # fmt: skip


def _case(name: str, series: dict[str, str], firing: set[str]) -> dict[str, Any]:
    """Asks after an hour which alerts fire; promtool's own check wants every word of them."""
    return {
        "name": name,
        "interval": "1m",
        "input_series": [{"series": each, "values": values} for each, values in series.items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": "58m",
                "exp_samples": [
                    {"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(firing)
                ],
            }
        ],
    }


def test_prometheus_takes_the_rules(tmp_path: Path) -> None:
    (tmp_path / "alerts.yaml").write_text(alerts.composed())
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", tmp_path / "alerts.yaml")


def test_each_alert_fires_on_its_fault_and_none_on_a_healthy_fleet(tmp_path: Path) -> None:
    assert set(FAULTS) == {alert.name for alert in ALERTS}
    cases = [_case("healthy", HEALTHY, set())]
    for alert, changes in FAULTS.items():
        changed = {**HEALTHY, **changes}
        series = {name: values for name, values in changed.items() if values is not None}
        cases.append(_case(alert, series, {alert}))
    (tmp_path / "alerts.yaml").write_text(alerts.composed())
    (tmp_path / "tests.yaml").write_text(
        yaml.safe_dump({"rule_files": ["alerts.yaml"], "evaluation_interval": "1m", "tests": cases})
    )
    assert "SUCCESS" in promtool("test", "rules", tmp_path / "tests.yaml")


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_says_what_is_so_and_what_to_do(alert: alerts.Alert) -> None:
    assert re.fullmatch(r"Nodecache[A-Z]\w+", alert.name)
    assert alert.summary
    assert "\n" not in alert.summary
    assert not alert.summary.endswith(".")
    assert alert.description.endswith(".")
    assert alert.severity in Severity
    assert not alert.bound or re.fullmatch(r"[<>] [0-9.]+", alert.bound)


def test_each_alert_has_its_runbook_and_each_runbook_its_alert() -> None:
    page = (ROOT / RUNBOOKS).read_text(encoding="utf-8")
    headings = re.findall(r"^## (Nodecache\w+)$", page, re.MULTILINE)
    assert headings == [alert.name for alert in ALERTS]
    for part in re.split(r"^## Nodecache\w+$", page, flags=re.MULTILINE)[1:]:
        for word in ("Means", "Look", "Do"):
            assert f"**{word}.**" in part
