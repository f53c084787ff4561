from __future__ import annotations

from tests.deploy.helm import rendered
from tests.loops import Run, until
from tests.webhook.certificates.cluster import Cluster, cluster, running

__all__ = ["cluster"]  # a fixture


def test_the_charts_objects_are_all_that_certificates_need(run: Run, cluster: Cluster) -> None:
    cluster.remove_objects()
    for each in rendered({"injection": {"mode": "webhook"}}):
        cluster.server.put(each)
    cluster.permit()  # the account has no rights but those of the chart's roles

    async def live() -> None:
        async with running(cluster.settings) as replicas:
            await until(lambda: cluster.is_quiet(replicas))

    run(live())
    assert set(cluster.bundles()) == {cluster.data()["ca.crt"]}


def test_the_chart_names_no_certificate_so_that_no_upgrade_takes_one_away() -> None:
    for each in rendered({"injection": {"mode": "webhook"}}):
        if each["kind"] == "Secret":
            assert not each.keys() & {"data", "stringData"}
        for webhook in each.get("webhooks", []):
            assert "caBundle" not in webhook["clientConfig"]
