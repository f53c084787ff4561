"""Looks at everything at once and puts together what was seen.

A look that fails is said and stops no other; each is bounded, so the whole takes ten seconds.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import nodecache
from nodecache.commands.doctor.look_daemon import inodes_of, look_at_daemon
from nodecache.commands.doctor.look_kernel import count_drops, look_at_holders, look_at_kernel
from nodecache.commands.doctor.look_rules import look_at_rules
from nodecache.commands.doctor.look_servers import ask_from_pod, ask_here, ask_upstreams
from nodecache.commands.doctor.resolvconf import ResolvConf, parse
from nodecache.commands.doctor.seen import Daemon, Pod, Seen, Skipped, Upstreams
from nodecache.commands.inspection import OnceReader
from nodecache.commands.request import STAND_IN
from nodecache.config.assemble import assemble, read_template
from nodecache.config.corefile import reason
from nodecache.config.flags import Flags, parse_flags
from nodecache.config.model import Address
from nodecache.config.node import NodePlan
from nodecache.config.service import CLUSTER_DNS, find_service_ip
from nodecache.directives.table import PLUGINS
from nodecache.errors import ConfigError, NodecacheError
from nodecache.host.looks import is_local
from nodecache.serving.views import find_upstreams

_LIMIT_S = 6.0
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Order:
    """What to look at.

    Attributes:
        flags: The daemon's, as far as this command was given them.
        has_localip: -localip is among them.
        pid: Of a process in a pod, 0 for none.
        resolvconf: A file to judge, "" for none.
        text: What it says.
    """

    flags: Flags
    has_localip: bool = False
    pid: int = 0
    resolvconf: str = ""
    text: str = ""


@dataclass(slots=True)
class _Look:
    """The looks of one run, and what hindered some."""

    skipped: list[Skipped] = field(default_factory=list)

    async def at(
        self, what: str, job: Awaitable[_Result], default: _Result, limit_s: float = _LIMIT_S
    ) -> _Result:
        """Returns what the job saw, or else the default, and why is kept."""
        try:
            async with asyncio.timeout(limit_s):
                return await job
        except TimeoutError:
            self.skip(what, f"it took longer than {limit_s:g} s")
        except (OSError, NodecacheError, ValueError) as error:
            self.skip(what, str(error))
        return default

    def skip(self, what: str, why: str) -> None:
        self.skipped.append(Skipped(what, why))


async def examine(order: Order) -> Seen:
    """Returns all that can be seen; raises nothing but asyncio's cancellation."""
    look = _Look()
    daemon = await asyncio.to_thread(look_at_daemon, order.flags.rundir)
    drops = count_drops(order.flags.dns_port)
    environ = daemon.environment if daemon is not None else os.environ
    plan, upstreams, faults = _find_plan(look, order, daemon, environ)
    if not plan.addresses:
        look.skip("addresses", "no daemon tells them, and -localip was not given")
    state = daemon.state if daemon is not None else None
    mark = state.mark if state is not None else b""
    processes = daemon.processes if daemon is not None else ()
    if daemon is not None and state is None:
        look.skip("daemon's own view", daemon.complaint)
    if daemon is not None and not processes:
        look.skip("daemon's processes", "they cannot be seen from this container")
    sockets = inodes_of(daemon) if daemon is not None else frozenset[int]()
    with_wildcards = replace(plan, is_wildcard=True)
    rules, holders, here, asked, pod = await asyncio.gather(
        look.at("packet filter", asyncio.to_thread(look_at_rules, plan), None),
        look.at("who listens", asyncio.to_thread(look_at_holders, with_wildcards, sockets), None),
        ask_here(plan, mark),
        ask_upstreams(upstreams),
        _look_at_pod(look, order, mark),
    )
    has_limits = bool(processes)
    if not has_limits and daemon is not None:
        look.skip("limits of the daemon", "its processes cannot be seen")
    cluster_dns = find_service_ip(CLUSTER_DNS, environ)
    return Seen(
        version=nodecache.__version__,
        plan=plan,
        wanted=order.flags.localip if order.has_localip else (),
        cluster_dns=(cluster_dns,) if cluster_dns else (),
        faults=faults,
        missing=tuple(host for host in plan.addresses if not is_local(host)),
        holders=holders if sockets or daemon is None else None,
        daemon=daemon,
        asked_here=here,
        asked_upstreams=asked,
        rules=rules,
        kernel=look_at_kernel(processes, drops, plan.dns_port),
        pod=pod,
        skipped=tuple(look.skipped),
    )


def _find_plan(
    look: _Look, order: Order, daemon: Daemon | None, environ: Mapping[str, str]
) -> tuple[NodePlan, Upstreams, tuple[str, ...]]:
    """Returns what a daemon wants here, whom it asks, and what is wrong with its configuration.

    The daemon's own word counts; else its command line; else that of this command.
    """
    if daemon is not None and daemon.state is not None:
        return daemon.state.plan, daemon.state.upstreams, ()
    flags = order.flags
    if daemon is not None and daemon.words:
        flags = parse_flags(("-localip", STAND_IN, *daemon.words))[0]
    reader = OnceReader()
    template = read_template(flags, environ, reader)
    if template.path in reader.failures:
        look.skip("configuration", f"{template.path}: {reason(reader.failures[template.path])}")
        return _bare_plan(flags), (), ()
    addresses = reader.addresses
    try:
        config = assemble(
            flags, environ, reader, PLUGINS, template=template, resolve_interface=addresses
        )
    except ConfigError as error:
        return _bare_plan(flags), (), tuple(map(str, error.faults))
    upstreams = tuple((z, Address(h, port), way) for z, h, port, way in find_upstreams(config))
    plan = config.node
    return (_bare_plan(flags) if STAND_IN in plan.addresses else plan), upstreams, ()


def _bare_plan(flags: Flags) -> NodePlan:
    hosts = tuple(host for host in flags.localip if host != STAND_IN and "%" not in host)
    return NodePlan(
        flags.interface_name, hosts, flags.dns_port, flags.health_port, flags.rules,
        has_interface=flags.setup_interface, has_rules=flags.setup_iptables,
    )  # fmt: skip


async def _look_at_pod(look: _Look, order: Order, mark: bytes) -> Pod | None:
    if not order.resolvconf:
        return None
    found: ResolvConf = parse(order.text)
    path = str(Path(order.resolvconf))
    if not order.pid or not found.servers:
        return Pod(path, found)
    job = ask_from_pod(order.pid, found.servers, mark)
    return Pod(path, found, await look.at("asked from within the pod", job, ()))
