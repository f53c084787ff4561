"""One webhook from its start to its end: both listeners, the certificate, and the signals."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import nodecache
from nodecache.config.model import Address
from nodecache.net.loop import loop_factory
from nodecache.telemetry.loglines import configure_logging
from nodecache.webhook.certificate_files import CertificateFiles, watch_files
from nodecache.webhook.certificates.api import find_api_server
from nodecache.webhook.certificates.keeping import keep_certificates
from nodecache.webhook.certificates.model import Settings
from nodecache.webhook.flags import WebhookFlags, injection_of
from nodecache.webhook.identity import ServerIdentity
from nodecache.webhook.metrics import Metrics
from nodecache.webhook.pages import Pages, Review, State
from nodecache.webhook.review import answer
from nodecache.webhook.room import Room
from nodecache.webhook.server import Server

logger = logging.getLogger(__name__)

Keep = Callable[[ServerIdentity], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be served.

    Attributes:
        listen: Where reviews come, over TLS.
        metrics_listen: Where /metrics answers without TLS; None for nowhere.
        review: Decides.
        keep: Has the certificate loaded, again and again until it is cancelled.
        leave_wait_s: Seconds to answer on, no longer ready, when told to end.
    """

    listen: Address
    metrics_listen: Address | None
    review: Review
    keep: Keep
    leave_wait_s: float


def run(flags: WebhookFlags, environ: Mapping[str, str]) -> None:
    """Serves as the command line says, until a signal ends it.

    Raises:
        SocketError: An address cannot be used.
        ApiError: Certificates are to be kept in a Secret, and there is no API server.
    """
    configure_logging(flags.log_format, logging.INFO)
    injection = injection_of(flags)
    plan = Plan(
        listen=flags.listen,
        metrics_listen=flags.metrics_listen,
        review=partial(answer, injection=injection),
        keep=_choose_keeping(flags, environ),
        leave_wait_s=flags.leave_wait_s or 0.0,
    )
    logger.info(
        "nodecache webhook %s: pods get the nameservers %s, and search below %s",
        nodecache.__version__,
        " ".join(injection.nameservers),
        injection.domain,
    )
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve(plan))


def _choose_keeping(flags: WebhookFlags, environ: Mapping[str, str]) -> Keep:
    if not flags.secret:
        return partial(watch_files, CertificateFiles(flags.certificate_file, flags.key_file))
    settings = Settings(
        api=find_api_server(environ),
        service=flags.service,
        namespace=flags.namespace,
        domain=flags.cluster_domain,
        secret=flags.secret,
        configuration=flags.configuration,
    )
    return lambda identity: keep_certificates(settings, identity.load)


async def serve(plan: Plan) -> None:
    """Serves until SIGTERM or SIGINT, then finishes what is under way; a second one hurries.

    Raises:
        SocketError: An address cannot be used.
    """
    loop = asyncio.get_running_loop()
    signals: asyncio.Queue[int] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, number)
    state, counts = State(ServerIdentity()), Metrics()
    pages = Pages(plan.review, state, counts)
    servers = [
        Server(plan.listen, state.identity.context, pages.answer_secure, counts.note_refusal)
    ]
    if plan.metrics_listen is not None:
        servers.append(Server(plan.metrics_listen, None, pages.answer_plain, counts.note_refusal))
    show_gauges(counts, state, servers[0].room)
    logger.info("answers reviews on port %d, /metrics on %s", servers[0].port, plan.metrics_listen)
    keeping = loop.create_task(plan.keep(state.identity))
    told = loop.create_task(signals.get())
    await asyncio.wait([told, keeping], return_when=asyncio.FIRST_COMPLETED)
    await _leave(plan, state, servers, signals)
    told.cancel()
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping  # whatever else ended it is an error of ours


async def _leave(
    plan: Plan, state: State, servers: list[Server], signals: asyncio.Queue[int]
) -> None:
    """Has API servers go elsewhere: first by readiness and with each answer, then for good."""
    state.is_leaving = True
    for server in servers:
        server.room.is_leaving = True
    logger.info("was told to end, and answers on for %g s", plan.leave_wait_s)
    with suppress(TimeoutError):
        async with asyncio.timeout(plan.leave_wait_s):
            await signals.get()
    await asyncio.gather(*(server.drain() for server in servers))


def show_gauges(counts: Metrics, state: State, room: Room) -> None:
    """Has the metrics show what is, beside what was counted."""
    counts.show("nodecache_webhook_reviews_in_flight", lambda: room.in_flight)
    counts.show("nodecache_webhook_connections", lambda: len(room))
    counts.show(
        "nodecache_webhook_certificate_expiry_timestamp_seconds",
        lambda: state.identity.not_after or 0.0,
    )
    counts.show("nodecache_webhook_ready", lambda: not state.obstacles())
