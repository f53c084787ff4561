"""Who changes a file finds its tests: they lie as the sources do, or a line here says where.

``nodecache/wire/query.py`` is tested in ``tests/wire/test_query.py``; a small folder may have one
file of tests beside it, as ``nodecache/demo`` has ``tests/test_demo.py``.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "nodecache"
TESTS = ROOT / "tests"

# File of nodecache -> tests that hold it.
ELSEWHERE = {
    "__main__.py": "test_cli.py",
    "cache/message.py": "cache/test_store.py",
    "cache/shared.py": "cache/test_memory.py",
    "commands/block_rows.py": "test_explain.py",
    "commands/cache_rows.py": "test_explain.py",
    "commands/check.py": "test_check.py",
    "commands/cleanup.py": "test_cleanup.py",
    "commands/excerpt.py": "test_check.py",
    "commands/explain.py": "test_explain.py",
    "commands/forward_rows.py": "test_explain.py",
    "commands/inspection.py": "test_check.py",
    "commands/layout.py": "test_explain.py",
    "commands/output.py": "test_check.py",
    "commands/request.py": "test_check.py",
    "commands/running.py": "process/test_window.py",
    "commands/webhook.py": "webhook/test_service.py",
    "config/blocks.py": "config/test_assemble.py",
    "config/flag_reading.py": "config/test_flags.py",
    "config/flag_table.py": "config/test_flags.py",
    "config/hostnames.py": "serving/test_hostnames.py",
    "config/kept.py": "test_loading.py",
    "config/lexer.py": "config/test_corefile.py",
    "config/mnemonics.py": "directives/rewrite/test_read.py",
    "config/model.py": "config/test_assemble.py",
    "config/plugin.py": "config/stock/test_stock.py",
    "config/reading.py": "directives/test_twice.py",
    "config/stock/binding.py": "config/test_assemble.py",
    "config/stock/caching.py": "config/stock/test_stock.py",
    "config/stock/destinations.py": "config/stock/test_stock.py",
    "config/stock/forwarding.py": "config/stock/test_stock.py",
    "config/wording.py": "test_explain.py",
    "counters.py": "telemetry/test_series.py",
    "directives/dns64/explain.py": "test_explain.py",
    "directives/dns64/model.py": "directives/dns64/test_read.py",
    "directives/hosts/explain.py": "test_explain.py",
    "directives/hosts/model.py": "directives/hosts/test_read.py",
    "directives/hosts/series.py": "serving/test_directives.py",
    "directives/lazy.py": "directives/test_table.py",
    "directives/loadbalance/explain.py": "test_explain.py",
    "directives/loadbalance/model.py": "directives/loadbalance/test_read.py",
    "directives/log/explain.py": "test_explain.py",
    "directives/log/line_format.py": "directives/log/test_read.py",
    "directives/log/model.py": "directives/log/test_read.py",
    "directives/loop/act.py": "directives/loop/test_watch.py",
    "directives/loop/explain.py": "test_explain.py",
    "directives/loop/model.py": "directives/loop/test_read.py",
    "directives/pprof/explain.py": "test_explain.py",
    "directives/pprof/model.py": "directives/pprof/test_read.py",
    "directives/rewrite/explain.py": "test_explain.py",
    "directives/rewrite/model.py": "directives/rewrite/test_read.py",
    "directives/rewrite/read_edns0.py": "directives/rewrite/test_read.py",
    "directives/rewrite/rewrite_response.py": "directives/rewrite/test_act.py",
    "directives/template/explain.py": "test_explain.py",
    "directives/template/model.py": "directives/template/test_read.py",
    "directives/template/rendering.py": "directives/template/test_act.py",
    "directives/whoami/explain.py": "test_explain.py",
    "directives/whoami/model.py": "directives/whoami/test_read.py",
    "errors.py": "config/test_faults.py",
    "host/__main__.py": "host/test_tool.py",
    "host/beat.py": "netns/test_failing_over.py",
    "host/flows.py": "netns/test_rules.py",
    "host/iptables_save.py": "host/test_chains.py",
    "host/links.py": "host/test_interface.py",
    "host/nftables.py": "netns/test_failing_over.py",
    "host/own_rules.py": "host/test_chains.py",
    "host/programs.py": "host/test_iptables.py",
    "host/rules.py": "host/test_rules_choice.py",
    "host/table.py": "host/test_rules_texts.py",
    "limits.py": "test_docs.py",
    "net/connection.py": "net/test_stream.py",
    "net/dial.py": "net/test_forward.py",
    "net/holders.py": "net/test_sockets.py",
    "net/loop.py": "process/test_worker.py",
    "net/tls.py": "net/test_forward.py",
    "process/descriptors.py": "process/test_handover.py",
    "process/keeper/acting.py": "process/keeper/test_holding.py",
    "process/keeper/child.py": "process/keeper/test_supervise.py",
    "process/keeper/log.py": "process/keeper/test_words.py",
    "process/keeper/probe.py": "process/keeper/test_silence.py",
    "process/keeper/signals.py": "process/keeper/test_supervise.py",
    "process/predecessor.py": "process/test_handover_exchange.py",
    "process/start.py": "process/test_worker.py",
    "process/successor.py": "process/test_handover_lies.py",
    "resolve/block.py": "resolve/test_resolver.py",
    "resolve/listener.py": "resolve/test_resolver.py",
    "resolve/logged.py": "directives/log/test_act.py",
    "resolve/slow_names.py": "commands/test_top.py",
    "resolve/waiter.py": "resolve/test_resolver.py",
    "serving/daemon.py": "daemon/test_life.py",
    "serving/identity.py": "process/test_warm_start.py",
    "serving/numbers.py": "serving/test_listeners.py",
    "serving/routes.py": "serving/test_listeners.py",
    "serving/top.py": "commands/test_top.py",
    "serving/watch.py": "commands/test_top.py",
    "serving/views.py": "netns/test_doctor.py",
    "telemetry/exposition.py": "telemetry/test_series.py",
    "telemetry/http_server.py": "telemetry/test_endpoints.py",
    "telemetry/readings.py": "telemetry/test_catalogue.py",
    "templates.py": "directives/template/test_read.py",
    "upstreams/asking.py": "upstreams/test_forwarder.py",
    "upstreams/exchange.py": "upstreams/test_forwarder.py",
    "upstreams/habits.py": "upstreams/test_deaths.py",
    "upstreams/outside.py": "upstreams/test_wording.py",
    "upstreams/pool.py": "upstreams/test_streams.py",
    "upstreams/roster.py": "upstreams/test_streams.py",
    "upstreams/truncated.py": "upstreams/test_datagrams.py",
    "webhook/certificates/model.py": "webhook/certificates/test_planning.py",
    "webhook/model.py": "webhook/test_decision.py",
    "webhook/pod.py": "webhook/test_decision.py",
    "wire/const.py": "wire/test_query.py",
    "wire/records.py": "wire/test_rdata.py",
}


def sources() -> list[Path]:
    """Returns all files of nodecache that hold code, relative to it."""
    found = (path.relative_to(SOURCES) for path in SOURCES.rglob("*.py"))
    return sorted(path for path in found if path.name != "__init__.py")


def is_mirrored(source: Path) -> bool:
    """Tells whether the tests of a file lie where one looks first."""
    own = TESTS / source.parent / f"test_{source.name}"
    of_folder = TESTS / source.parent.parent / f"test_{source.parent.name}.py"
    return own.exists() or of_folder.exists()


def test_each_source_has_its_tests_or_a_line_that_says_where_they_are() -> None:
    lost = [str(path) for path in sources() if not is_mirrored(path) and str(path) not in ELSEWHERE]
    assert lost == []


def test_each_line_is_needed_and_true() -> None:
    needless = {name for name in ELSEWHERE if is_mirrored(Path(name))}
    gone = ELSEWHERE.keys() - {str(path) for path in sources()}
    untrue = {name for name in ELSEWHERE.values() if not (TESTS / name).exists()}
    assert (needless, gone, untrue) == (set(), set(), set())
