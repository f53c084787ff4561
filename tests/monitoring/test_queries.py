"""Queries are those of series that there are: what is renamed in the catalogue fails here."""

from __future__ import annotations

import pytest

from daemonset.monitoring.queries import QueryError, Scope, share, share_of_all

DNS = Scope('job="dns"', "5m")
EVERYWHERE = Scope("", "5m")


def test_a_rate_is_summed_by_labels_within_the_targets() -> None:
    query = DNS.rate("coredns_dns_responses_total", "instance", "zone", rcode="SERVFAIL")
    assert query == (
        "sum by (instance, zone) "
        '(rate(coredns_dns_responses_total{job="dns", rcode="SERVFAIL"}[5m]))'
    )


def test_a_matcher_may_be_a_regular_expression_or_a_refusal() -> None:
    assert EVERYWHERE.series("up", job="=~a|b", instance="!=c") == 'up{job=~"a|b", instance!="c"}'


def test_no_matcher_leaves_a_bare_name() -> None:
    assert EVERYWHERE.gauge("max", "nodecache_redirect") == "max(nodecache_redirect)"


def test_a_quantile_is_taken_over_buckets() -> None:
    query = EVERYWHERE.quantile(0.99, "nodecache_loop_lag_seconds", "instance")
    assert query == (
        "histogram_quantile(0.99, sum by (le, instance) "
        "(rate(nodecache_loop_lag_seconds_bucket[5m])))"
    )


def test_the_count_of_a_histogram_is_a_counter() -> None:
    assert "_count{" in DNS.rate("coredns_proxy_request_duration_seconds_count", "to")


def test_shares_are_of_what_is_more_than_nothing() -> None:
    assert share("a", "b") == "a / (b > 0)"
    assert share("a", "b", least=0.1) == "a / (b > 0.1)"
    assert share_of_all("a", "b") == "a / on () group_left () (b > 0)"


@pytest.mark.parametrize(
    "name", ["coredns_dns_request_total", "nodecache_hits", "nodecache_hits_total_bucket", "upp"]
)
def test_a_series_that_nobody_has_is_refused(name: str) -> None:
    with pytest.raises(QueryError, match="nobody has a series"):
        DNS.rate(name)


def test_a_label_that_a_series_lacks_is_refused() -> None:
    with pytest.raises(QueryError, match="has no label colour"):
        DNS.rate("nodecache_hits_total", "colour")
    with pytest.raises(QueryError, match="has no label le"):
        DNS.rate("nodecache_hits_total", "le")
    with pytest.raises(QueryError, match="has no label rcode"):
        DNS.series("nodecache_hits_total", rcode="NOERROR")


def test_a_gauge_has_no_rate_and_a_counter_is_no_gauge() -> None:
    with pytest.raises(QueryError, match="is no counter"):
        DNS.rate("nodecache_redirect")
    with pytest.raises(QueryError, match="is no counter"):
        DNS.rate("nodecache_loop_lag_seconds")
    with pytest.raises(QueryError, match="is no gauge"):
        DNS.gauge("max", "nodecache_hits_total")
    with pytest.raises(QueryError, match="is no histogram"):
        DNS.quantile(0.5, "nodecache_redirect")
