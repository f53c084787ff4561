"""The ``pprof`` directive: what Python can say about where time and memory go.

CoreDNS serves the formats of Go's tools; these pages are plain text. Frames of compiled modules do
not show: their time counts for whoever called them.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from http import HTTPStatus
from itertools import islice
from pathlib import Path
from time import monotonic
from types import CodeType, CoroutineType, FrameType
from typing import Any

from nodecache.config.model import Address, ServerBlock
from nodecache.directives.pprof.model import PPROF
from nodecache.limits import PROFILE_S
from nodecache.printing import printable
from nodecache.telemetry.http_server import Page, PageRequest, Response

PATH = "/debug/pprof/"

_SAMPLE_INTERVAL_S = 0.005
_MAX_DEPTH = 200
_MAX_STACKS = 10_000
_MAX_TASKS = 10_000
_HEAP_S = 0.5
_HEAP_BATCH = 1000
_HEAP_TYPES = 60

Stack = tuple[str, ...]  # functions or places, from the outermost
_OTHERS: Stack = ("(other stacks)",)

_INDEX = f"""\
nodecache: profiles

{PATH}profile?seconds=N  where the loop's thread spends its time: N seconds (1 to 60, else 30),
    one line a stack, its frames from the outermost, and how often it was seen: what
    flamegraph.pl and speedscope read. A stack that ends in the loop itself is idle time
{PATH}tasks  the tasks, and where each of them waits
{PATH}heap  objects by type, and the sizes that matter
"""


def address_of(block: ServerBlock) -> Address | None:
    """Returns where the pages answer."""
    return block.of(PPROF)


class Profiler:
    """Samples one thread from another; one profile at a time.

    Args:
        thread_id: Of the thread to look at, as threading.get_ident() has it.
    """

    def __init__(self, thread_id: int) -> None:
        self._thread_id = thread_id
        self._is_busy = False

    async def profile(self, seconds: float) -> str | None:
        """Returns collapsed stacks, None while another profile is being taken.

        Whoever asks and goes away ends the profile.
        """
        if self._is_busy:
            return None
        self._is_busy = True
        stopping = threading.Event()
        sample = partial(sample_stacks, self._thread_id, seconds, stopping)
        try:
            return collapse(await asyncio.get_running_loop().run_in_executor(None, sample))
        finally:
            stopping.set()
            self._is_busy = False


def sample_stacks(thread_id: int, seconds: float, stopping: threading.Event) -> Counter[Stack]:
    """Returns how often each stack of a thread was seen.

    Looks every 5 ms for ``seconds``, or until ``stopping`` is set. To be run in another thread.
    """
    seen: Counter[Stack] = Counter()
    names: dict[CodeType, str] = {}  # so that stacks share their texts
    deadline = monotonic() + seconds
    while monotonic() < deadline and not stopping.wait(_SAMPLE_INTERVAL_S):
        stack = _stack_of(sys._current_frames().get(thread_id), names)
        seen[stack if stack in seen or len(seen) < _MAX_STACKS else _OTHERS] += 1
    return seen


def _stack_of(frame: FrameType | None, names: dict[CodeType, str]) -> Stack:
    stack: list[str] = []
    while frame is not None and len(stack) < _MAX_DEPTH:
        code = frame.f_code
        if code not in names:
            names[code] = f"{frame.f_globals.get('__name__', '?')}.{code.co_qualname}"
        stack.append(names[code])
        frame = frame.f_back
    return tuple(reversed(stack)) or ("(no such thread)",)


def collapse(seen: Mapping[Stack, int]) -> str:
    """Returns one line for each stack: "a;b;c 17"."""
    lines = (f"{';'.join(map(_frame_text, stack))} {count}\n" for stack, count in seen.items())
    return "".join(sorted(lines))


def _frame_text(name: str) -> str:
    return printable(name).replace(";", ":").replace(" ", "_")


def tasks_text(tasks: Iterable[asyncio.Task[Any]]) -> str:
    """Returns where the tasks wait, innermost last; tasks that wait alike are counted together."""
    seen: Counter[Stack] = Counter(map(_waiting_at, islice(tasks, _MAX_TASKS)))
    parts = [f"{seen.total()} tasks\n"]
    for places, count in seen.most_common():
        parts.append(f"\n{count} x\n")
        parts += [f"    {printable(place)}\n" for place in places]
    return "".join(parts)


def _waiting_at(task: asyncio.Task[Any]) -> Stack:
    places: list[str] = []
    awaited: object = task.get_coro()
    while isinstance(awaited, CoroutineType) and len(places) < _MAX_DEPTH:
        line = awaited.cr_frame.f_lineno if awaited.cr_frame is not None else 0
        file = awaited.cr_code.co_filename
        places.append(f"{awaited.__qualname__} at {file}:{line}")
        awaited = awaited.cr_await
    if awaited is not None:
        places.append(type(awaited).__qualname__)
    return tuple(places)


def heap_text(sizes: Mapping[str, float]) -> str:
    """Returns objects by type and the sizes that matter, in at most about half a second.

    Args:
        sizes: Name -> number; what else there is to show.

    Objects that the collector does not follow (octets, text, numbers) are in no type's count, nor
    are those from before the start, which are frozen. To be run in another thread, since it
    takes long; the list of objects is still made in one piece (about 10 ms a million).
    """
    counts: Counter[type] = Counter()
    octets: Counter[type] = Counter()
    objects = gc.get_objects()
    deadline = monotonic() + _HEAP_S
    for start in range(0, len(objects), _HEAP_BATCH):
        if monotonic() > deadline:
            break
        for found in objects[start : start + _HEAP_BATCH]:
            counts[type(found)] += 1
            octets[type(found)] += _size_of(found)
    lines = [f"{name} {value:.15g}" for name, value in {**_sizes(), **sizes}.items()]
    lines += ["", f"{counts.total()} of {len(objects)} objects that the collector follows:"]
    for kind, count in counts.most_common(_HEAP_TYPES):
        name = f"{getattr(kind, '__module__', '?')}.{kind.__qualname__}"
        lines.append(f"{count:9} {octets[kind]:12} octets  {name}")
    return "".join(f"{printable(line)}\n" for line in lines)


def _size_of(found: object) -> int:
    """Octets of one object alone, 0 where its own code cannot say."""
    try:
        return sys.getsizeof(found)
    except Exception:  # noqa: BLE001 (anybody's __sizeof__)
        return 0


def _sizes() -> dict[str, float]:
    sizes: dict[str, float] = {
        "largest_resident_octets": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "allocated_blocks": sys.getallocatedblocks(),
        "frozen_objects": gc.get_freeze_count(),
        "threads": threading.active_count(),
    }
    with contextlib.suppress(OSError):  # no Linux
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        sizes["resident_octets"] = pages * resource.getpagesize()
    return sizes


def make_pages(gauges: Mapping[str, Callable[[], float]]) -> dict[str, Page]:
    """Returns the pages below /debug/pprof/; to be called on the loop's thread.

    Args:
        gauges: Name -> function that reads a size; what the heap page adds.
    """
    profiler = Profiler(threading.get_ident())

    async def show_index(_request: PageRequest) -> Response:
        return _answer(_INDEX)

    async def profile(request: PageRequest) -> Response:
        seconds, refusal = parse_seconds(request.query.get("seconds", ""))
        if refusal:
            return _answer(f"{refusal}\n", HTTPStatus.BAD_REQUEST)
        request.take(seconds)
        text = await profiler.profile(seconds)
        if text is None:
            return _answer("a profile is being taken: try again later\n", HTTPStatus.CONFLICT)
        return _answer(text)

    async def show_tasks(_request: PageRequest) -> Response:
        return _answer(tasks_text(asyncio.all_tasks()))

    async def show_heap(_request: PageRequest) -> Response:
        sizes = {name: read() for name, read in gauges.items()}
        loop = asyncio.get_running_loop()
        return _answer(await loop.run_in_executor(None, heap_text, sizes))

    return {
        PATH: show_index,
        PATH.rstrip("/"): show_index,
        f"{PATH}profile": profile,
        f"{PATH}tasks": show_tasks,
        f"{PATH}heap": show_heap,
    }


def parse_seconds(text: str) -> tuple[float, str]:
    """Returns the seconds that a request asks for, the default for "", and why they are refused."""
    try:
        seconds = float(text or PROFILE_S.default)
    except ValueError:
        return 0.0, "seconds is no number"
    return seconds, PROFILE_S.refusal(seconds)


def _answer(text: str, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(status, text.encode("utf-8", "backslashreplace"))
