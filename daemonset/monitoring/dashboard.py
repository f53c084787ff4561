"""The dashboard for Grafana: what one screen shows of the caches of all nodes.

Types and names of settings are Grafana's own, by its foundation SDK; queries come from the
catalogue. Who wants another panel adds it here: the chart ships what generate.py writes.
"""

from __future__ import annotations

import json

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as settings
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from daemonset.monitoring.queries import Scope, share, share_of_all

NODES = Scope('job=~"$job", instance=~"$instance"', "$__rate_interval")
OF_THE_JOB = Scope('job=~"$job"', NODES.window)
EVERYWHERE = Scope("", NODES.window)  # the webhook's job has a name of its own

TITLE = "nodecache"
UID = "nodecache"
_SOURCE = model.DataSourceRef("prometheus", "${datasource}")

Panel = bargauge.Panel | stat.Panel | statetimeline.Panel | table.Panel | timeseries.Panel

_GREEN, _YELLOW, _RED, _BLUE = "green", "yellow", "red", "blue"
_REQUESTS = NODES.rate("coredns_dns_requests_total")
_SERVFAILS = NODES.rate("coredns_dns_responses_total", rcode="SERVFAIL")
_RESPONSES = NODES.rate("coredns_dns_responses_total")


def composed() -> str:
    """Returns the dashboard as JSON."""
    builder = (
        dashboard.Dashboard(TITLE)
        .uid(UID)
        .description("The DNS caches of all nodes: what they answer, whom they ask, what it costs.")
        .tags(["dns", "nodecache", "node-local-dns"])
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .time("now-1h", "now")
        .refresh("30s")
        .readonly()
    )
    for variable in _variables():
        builder = builder.with_variable(variable)
    panels = [*_at_a_glance(), *_answers(), *_upstreams(), *_node(), *_fleet()]
    for number, panel in enumerate(panels, 1):
        builder = builder.with_panel(panel.id(number).datasource(_SOURCE))
    return json.dumps(builder.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _variables() -> list[dashboard.DatasourceVariable | dashboard.QueryVariable]:
    ours = "nodecache_hits_total"  # CoreDNS has most of the other names, too
    every = model.VariableOption(selected=True, text=["All"], value=["$__all"])
    asked = [
        ("job", "Job", EVERYWHERE.series(ours)),
        ("instance", "Node", OF_THE_JOB.series(ours)),
    ]
    return [
        dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"),
        *(
            dashboard.QueryVariable(name)
            .label(label)
            .datasource(_SOURCE)
            .query({"query": f"label_values({series}, {name})", "refId": "A"})
            .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(model.VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .current(every)
            for name, label, series in asked
        ),
    ]


def _at_a_glance() -> list[Panel]:
    return [
        _figure("Queries", "Queries that pods sent, a second.", "reqps", _REQUESTS),
        _figure(
            "Hit ratio", "How many of them were answered from memory.", "percentunit",
            share(NODES.rate("nodecache_hits_total"), _REQUESTS),
            thresholds=((None, _RED), (0.5, _YELLOW), (0.75, _GREEN)),
        ),
        _figure(
            "p99", "99 of 100 queries were answered faster.", "s",
            NODES.quantile(0.99, "coredns_dns_request_duration_seconds"),
            thresholds=((None, _GREEN), (0.25, _YELLOW), (1, _RED)),
        ),
        _figure(
            "SERVFAIL", "How many responses said that no answer could be had.", "percentunit",
            share(f"({_SERVFAILS} or 0 * {_RESPONSES})", _RESPONSES),
            thresholds=((None, _GREEN), (0.01, _YELLOW), (0.05, _RED)),
        ),
        _figure(
            "Nodes", "Nodes whose cache is scraped.", "short",
            NODES.gauge("count", "coredns_build_info"),
        ),
        _figure(
            "Redirected", "Nodes whose packet filter rules steer queries to the cache. Empty where"
            " nodecache makes no rules (IPVS, Cilium).", "percentunit",
            NODES.gauge("avg", "nodecache_redirect"),
            thresholds=((None, _RED), (0.9, _YELLOW), (1, _GREEN)),
        ),
        _figure(
            "Memory", "Of the node that takes most; the keeper's 13 MB are not in it.", "bytes",
            NODES.gauge("max", "process_resident_memory_bytes"),
        ),
        _figure(
            "CPU", "Of the node that takes most: 100 % is one core.", "percentunit",
            f"max({NODES.rate('process_cpu_seconds_total', 'instance')})",
            thresholds=((None, _GREEN), (0.5, _YELLOW), (0.8, _RED)),
        ),
    ]  # fmt: skip


def _answers() -> list[Panel]:
    duration = "coredns_dns_request_duration_seconds"
    return [
        _graph(
            "Answered from", "Which share of all queries each cache answered: ready packets, then"
            " messages. The rest was asked of an upstream, or refused.", "percentunit",
            (share_of_all(NODES.rate("nodecache_hits_total", "tier"), _REQUESTS), "{{tier}}"),
            stacked=True,
        ).max(1),
        _graph(
            "Time to answer, by zone", "Half of all queries, and 99 of 100, were answered faster. A"
            " zone's p50 is that of hits; its p99 shows what its upstreams take.", "s",
            (NODES.quantile(0.5, duration, "zone"), "p50 {{zone}}"),
            (NODES.quantile(0.99, duration, "zone"), "p99 {{zone}}"),
            logarithmic=True,
        ),
        _graph(
            "Responses", "By response code. NXDOMAIN is mostly what search lists cost; SERVFAIL"
            " should not be there.", "reqps",
            (NODES.rate("coredns_dns_responses_total", "rcode"), "{{rcode}}"),
            stacked=True,
        ),
    ]  # fmt: skip


def _upstreams() -> list[Panel]:
    duration = "coredns_proxy_request_duration_seconds"
    return [
        _graph(
            "Asked upstream", "Who is asked, and how it answers, a second.", "reqps",
            (NODES.rate(f"{duration}_count", "to", "rcode"), "{{to}} {{rcode}}"),
            stacked=True, width=6,
        ),
        _graph(
            "Time of upstreams", "Half of its answers, and 99 of 100, came faster.", "s",
            (NODES.quantile(0.5, duration, "to"), "p50 {{to}}"),
            (NODES.quantile(0.99, duration, "to"), "p99 {{to}}"),
            logarithmic=True, width=6,
        ),
        _graph(
            "Slow names, by zone", "Exchanges with upstreams that took a quarter of a second or"
            " longer, or came to nothing. nodecache top, in the pod, names the names.", "cps",
            (NODES.rate("nodecache_slow_exchanges_total", "zones"), "{{zones}}"),
            width=6,
        ),
        _graph(
            "What was done about trouble", "Stale: answered from memory beyond its time, since"
            " nobody answered. Hedged: asked again because the answer was late. Doubted: asked"
            " again because it said SERVFAIL or was cut. Shed: refused because too much was in"
            " flight. Failed: no upstream gave an answer.", "reqps",
            *((NODES.rate(f"nodecache_{name}_total"), legend) for name, legend in _TROUBLES),
            width=6,
        ),
    ]  # fmt: skip


_TROUBLES = (
    ("stale", "stale"),
    ("hedged", "hedged"),
    ("doubted", "doubted"),
    ("shed", "shed"),
    ("upstream_failures", "failed"),
)


def _node() -> list[Panel]:
    away = "nodecache_fallback_{}_total"
    asked = NODES.rate("coredns_dns_requests_total", "instance")
    share_away = (
        f"{NODES.rate(away.format('seconds'), 'instance')}"
        f" + {NODES.rate(away.format('packets'), 'instance')} / {asked}"
    )
    return [
        _bars(
            "NXDOMAIN by suffix", "Names that are not there, a second, by how they end. A name of"
            " elsewhere that is tried below the search domains costs a query for each of them:"
            " lower ndots, or a final dot, saves that.", "reqps",
            f"topk(8, {NODES.rate('nodecache_nxdomain_total', 'suffix')} > 0)", "{{suffix}}",
            width=7,
        ),
        _states(
            "Redirect of each node", "Whether the kernel steers queries to the cache, or to the"
            " cluster's DNS; partly away if that was so for one of a hundred. A gap: not scraped.",
            f"{NODES.gauge('min', 'nodecache_redirect', 'instance')}"
            f" * (1 + ({share_away} > bool 0.01))",
            (("here", _GREEN), ("partly away", _YELLOW)), ("cluster's DNS", _RED),
        ),
        _graph(
            "Memory", "Resident, of each node's serving process.", "bytes",
            (NODES.gauge("max", "process_resident_memory_bytes", "instance"), "{{instance}}"),
            width=3, legend=False,
        ),
        _graph(
            "CPU", "Of each node's serving process; 100 % is one core.", "percentunit",
            (NODES.rate("process_cpu_seconds_total", "instance"), "{{instance}}"),
            width=3, legend=False,
        ),
        _graph(
            "Loop lag", "By how much each node's process comes late for what is due, nine times of"
            " ten less: it waits for a core, and so does each query.", "s",
            (NODES.quantile(0.9, "nodecache_loop_lag_seconds", "instance"), "{{instance}}"),
            width=3, legend=False,
        ),
    ]  # fmt: skip


def _fleet() -> list[Panel]:
    decisions = "nodecache_webhook_decisions_total"
    return [
        _nodes_table(),
        _graph(
            "Lost", "Datagrams that the kernel dropped because a listener's queue was full, and"
            " messages that got no reply on purpose, by reason.", "cps",
            (NODES.rate("nodecache_receive_queue_drops_total"), "queue full"),
            (NODES.rate("nodecache_drops_total", "reason") + " > 0", "{{reason}}"),
            width=5,
        ),
        _bars(
            "Versions", "Nodes by the version that runs there: more than one during a rollout.",
            "short", NODES.gauge("count", "coredns_build_info", "version"), "{{version}}", width=4,
        ),
        _graph(
            "Injection", "What the webhook decided about new pods, a second. Empty without it: a"
            " policy counts in the API server.", "cps",
            (EVERYWHERE.rate(decisions, reason="injected"), "injected"),
            (EVERYWHERE.rate(decisions, "reason", reason="!=injected") + " > 0", "{{reason}}"),
            width=5,
        ),
    ]  # fmt: skip


# Heading, unit, query by instance. The version is a label, so its column comes of the first.
_COLUMNS = (
    ("version", "short", NODES.gauge("max", "coredns_build_info", "instance", "version")),
    ("queries", "reqps", NODES.rate("coredns_dns_requests_total", "instance")),
    (
        "hit ratio",
        "percentunit",
        share(
            NODES.rate("nodecache_hits_total", "instance"),
            NODES.rate("coredns_dns_requests_total", "instance"),
        ),
    ),
    ("p99", "s", NODES.quantile(0.99, "coredns_dns_request_duration_seconds", "instance")),
    ("memory", "bytes", NODES.gauge("max", "process_resident_memory_bytes", "instance")),
    (
        "restarts",
        "short",
        f"max by (instance) ({NODES.series('nodecache_worker_restarts_total')})",
    ),
)


def _nodes_table() -> Panel:
    panel = (
        table.Panel()
        .title("Nodes")
        .description("Each node's version and figures now. Click a heading to sort by it.")
        .span(10)
        .height(7)
        .cell_height(settings.TableCellHeight.SM)
    )
    shown = {"instance": "node"}
    for ref, (heading, unit, expr) in zip("ABCDEF", _COLUMNS, strict=True):
        query = prometheus.Dataquery().expr(expr).instant().format(PromQueryFormat.TABLE)
        panel = panel.with_target(query.ref_id(ref))
        panel = panel.override_by_name(heading, [model.DynamicConfigValue("unit", unit)])
        shown[f"Value #{ref}"] = heading
    hidden = dict.fromkeys(("Value #A", "Time", *(f"Time {n}" for n in range(1, 7))), True)
    del shown["Value #A"]
    join = model.DataTransformerConfig(
        "joinByField", options={"byField": "instance", "mode": "outer"}
    )
    tidy = model.DataTransformerConfig(
        "organize", options={"excludeByName": hidden, "renameByName": shown}
    )
    return panel.with_transformation(join).with_transformation(tidy)


def _query(expr: str, legend: str = "") -> prometheus.Dataquery:
    query = prometheus.Dataquery().expr(expr).ref_id("A")
    return query.legend_format(legend) if legend else query


def _steps(thresholds: tuple[tuple[float | None, str], ...]) -> dashboard.ThresholdsConfig:
    steps = [model.Threshold(value, color) for value, color in thresholds]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)


def _figure(
    title: str, text: str, unit: str, expr: str,
    thresholds: tuple[tuple[float | None, str], ...] = ((None, _BLUE),),
) -> Panel:  # fmt: skip
    return (
        stat.Panel()
        .title(title)
        .description(text)
        .unit(unit)
        .span(3)
        .height(4)
        .thresholds(_steps(thresholds))
        .graph_mode(settings.BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(_query(expr))
    )


def _graph(
    title: str, text: str, unit: str, *queries: tuple[str, str],
    stacked: bool = False, logarithmic: bool = False, width: int = 8, legend: bool = True,
) -> timeseries.Panel:  # fmt: skip
    panel = (
        timeseries.Panel()
        .title(title)
        .description(text)
        .unit(unit)
        .span(width)
        .height(7)
        .line_width(1)
        .fill_opacity(30 if stacked else 8)
        .show_points(settings.VisibilityMode.NEVER)
        .tooltip(common.VizTooltipOptions().mode(settings.TooltipDisplayMode.MULTI))
        .legend(common.VizLegendOptions().show_legend(legend))
    )
    if not logarithmic:
        panel = panel.min(0)
    else:
        scale = common.ScaleDistributionConfig().type(settings.ScaleDistribution.LOG).log(10)
        panel = panel.scale_distribution(scale)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(settings.StackingMode.NORMAL))
    for ref, (expr, name) in zip("ABCDEFGH", queries, strict=False):
        panel = panel.with_target(_query(expr, name).ref_id(ref))
    return panel


def _bars(title: str, text: str, unit: str, expr: str, legend: str, width: int = 8) -> Panel:
    return (
        bargauge.Panel()
        .title(title)
        .description(text)
        .unit(unit)
        .span(width)
        .height(7)
        .min(0)
        .thresholds(_steps(((None, _BLUE),)))
        .orientation(settings.VizOrientation.HORIZONTAL)
        .display_mode(settings.BarGaugeDisplayMode.BASIC)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(_query(expr, legend).instant())
    )


def _states(
    title: str, text: str, expr: str, from_one: tuple[tuple[str, str], ...], zero: tuple[str, str]
) -> Panel:
    words = {
        str(value): model.ValueMappingResult(text=word, color=color, index=value)
        for value, (word, color) in enumerate((zero, *from_one))
    }
    return (
        statetimeline.Panel()
        .title(title)
        .description(text)
        .span(8)
        .height(7)
        .mappings([model.ValueMap(words)])
        .merge_values(True)
        .show_value(settings.VisibilityMode.NEVER)
        .line_width(0)
        .fill_opacity(80)
        .with_target(_query(expr, "{{instance}}"))
    )
