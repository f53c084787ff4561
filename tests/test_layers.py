"""Imports point one way, and the core of nodecache touches neither clock, socket nor loop.

Read from the syntax trees, so that imports inside functions and for type checkers count, too.
"""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "nodecache"

# A unit is a module or folder right below nodecache/. It may import itself and lower layers.
LAYERS = [
    {"errors", "limits", "counters", "files", "timers", "printing", "templates", "sketches"},
    {"patterns"},
    {"wire"},
    {"config"},
    {"cache", "upstreams"},
    {"resolve"},
    {"net", "host", "telemetry"},
    {"directives", "webhook"},
    {"loading"},
    {"serving"},
    {"process"},
    {"commands"},
    {"cli"},
    {"__main__"},
]
RANK = {unit: rank for rank, units in enumerate(LAYERS) for unit in units}
STANDALONE = {"demo"}  # import nothing of ours, and nothing of ours imports them

PURE = {
    "errors", "limits", "counters", "timers", "printing", "patterns", "templates", "wire", "config",
    "cache", "directives", "resolve", "upstreams",
}  # fmt: skip
# Of a unit that touches the world otherwise.
PURE_MODULES = {
    "nodecache.webhook.decision", "nodecache.webhook.model", "nodecache.webhook.pod",
    "nodecache.webhook.review",
}  # fmt: skip
IMPURE_IMPORTS = {
    "asyncio", "concurrent", "ctypes", "importlib", "logging", "multiprocessing", "os", "pathlib",
    "prometheus_client", "pyroute2", "random", "secrets", "select", "selectors", "signal",
    "socket", "ssl", "subprocess", "threading", "time", "uvloop",
}  # fmt: skip
# Module -> imports it may have all the same, and why.
EXCEPTIONS = {
    "nodecache.config.corefile": {"pathlib": "PurePosixPath joins names; it reads no file"},
    "nodecache.directives.hosts.series": {"pathlib": "says how old a hosts file is"},
    "nodecache.directives.log.act": {"logging": "writing lines is what it does"},
    "nodecache.directives.loop.watch": {
        "asyncio": "asks a question again and again",
        "logging": "says what it found",
        "os": "a name that nobody can guess",
        "time": "asks the resolver as a query does",
    },
    "nodecache.directives.pprof.pages": {
        "asyncio": "looks at the loop's tasks",
        "pathlib": "reads what the kernel says of this process",
        "threading": "looks at the loop's thread from another",
        "time": "a profile takes seconds",
    },
    "nodecache.directives.lazy": {"importlib": "imports what a Corefile asks for"},
}


def module_name(path: Path, root: Path) -> str:
    """Returns the dotted name of the module in ``path``."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def read_imports(root: Path) -> dict[str, set[str]]:
    """Returns module -> names it imports, as modules where they are ours, for all below root."""
    paths = {module_name(path, root): path for path in sorted(root.glob(f"{PACKAGE}/**/*.py"))}
    return {name: imports_of(path, set(paths)) for name, path in paths.items()}


def imports_of(path: Path, modules: set[str]) -> set[str]:
    """Returns the names that the file imports; ``from x import y`` is x.y if that is a module."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            full = {alias.name: f"{base}.{alias.name}" for alias in node.names}
            names |= {name if name in modules else base for name in full.values()}
    return names


def unit_of(module: str) -> str:
    """Returns the part of the house that a module of ours belongs to; "" for the package itself."""
    unit = module.removeprefix(PACKAGE).lstrip(".").partition(".")[0]
    return "demo" if unit.startswith("demo") else unit


def is_ours(name: str) -> bool:
    return name == PACKAGE or name.startswith((f"{PACKAGE}.", "."))


def may_import(unit: str, other: str) -> bool:
    """Returns whether a module of ``unit`` may import one of ``other``."""
    if unit == other or other == "":
        return True
    if unit in STANDALONE or other in STANDALONE or unit not in RANK or other not in RANK:
        return False
    return RANK[other] < RANK[unit]


def find_wrong_ways(imports: dict[str, set[str]]) -> list[str]:
    """Returns each import of ours that points up or sideways."""
    return [
        f"{module} imports {name}"
        for module, names in imports.items()
        for name in sorted(names)
        if is_ours(name) and not may_import(unit_of(module), unit_of(name))
    ]


def find_impurities(
    imports: dict[str, set[str]], exceptions: dict[str, dict[str, str]]
) -> list[str]:
    """Returns each import by which the core would touch the world."""
    return [
        f"{module} imports {name}"
        for module, names in imports.items()
        if unit_of(module) in PURE or module in PURE_MODULES
        for name in sorted(names)
        if (top := name.partition(".")[0]) in IMPURE_IMPORTS
        and top not in exceptions.get(module, {})
    ]


def find_cycle(imports: dict[str, set[str]]) -> list[str]:
    """Returns the modules of one import cycle, or nothing."""
    graph = {module: {n for n in names if n in imports} for module, names in imports.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    return read_imports(ROOT)


def test_imports_point_one_way(imports: dict[str, set[str]]) -> None:
    assert len(imports) > 10
    assert find_wrong_ways(imports) == []


def test_upstreams_know_no_cache_and_no_stub_resolver(imports: dict[str, set[str]]) -> None:
    ground = LAYERS[0]
    known = {
        unit_of(name)
        for module, names in imports.items()
        if unit_of(module) == "upstreams"
        for name in names
        if is_ours(name)
    }
    assert known <= ground | {"wire", "config", "upstreams"}


def test_no_modules_import_each_other_in_a_circle(imports: dict[str, set[str]]) -> None:
    assert find_cycle(imports) == []


def test_core_touches_neither_clock_nor_socket_nor_loop(imports: dict[str, set[str]]) -> None:
    assert find_impurities(imports, EXCEPTIONS) == []


def test_each_exception_is_still_needed(imports: dict[str, set[str]]) -> None:
    needless = [
        f"{module}: {name}"
        for module, names in EXCEPTIONS.items()
        for name in names
        if name not in {n.partition(".")[0] for n in imports.get(module, set())}
    ]
    assert needless == []


def test_each_unit_has_its_layer(imports: dict[str, set[str]]) -> None:
    units = {unit_of(module) for module in imports} - {""}
    assert units <= RANK.keys() | STANDALONE


@pytest.mark.parametrize(
    ("path", "source", "complaint"),
    [
        (
            "wire/a.py",
            "from nodecache.cache import store",
            "nodecache.wire.a imports nodecache.cache",
        ),
        ("net/a.py", "import nodecache.telemetry", "nodecache.net.a imports nodecache.telemetry"),
        (
            "cache/a.py",
            "def f():\n  from nodecache.net import udp",
            "nodecache.cache.a imports nodecache.net",
        ),
        (
            "serving/daemon.py",
            "import nodecache.demo",
            "nodecache.serving.daemon imports nodecache.demo",
        ),
        ("demo.py", "from nodecache.wire import name", "nodecache.demo imports nodecache.wire"),
        ("wire/a.py", "from ..cache import store", "nodecache.wire.a imports ..cache"),
    ],
)
def test_wrong_way_is_found(tmp_path: Path, path: str, source: str, complaint: str) -> None:
    write(tmp_path, path, source)
    assert find_wrong_ways(read_imports(tmp_path)) == [complaint]


@pytest.mark.parametrize("source", ["import time", "from os import path", "import asyncio.events"])
def test_impurity_is_found(tmp_path: Path, source: str) -> None:
    write(tmp_path, "resolve/a.py", source)
    write(tmp_path, "net/a.py", source)
    found = find_impurities(read_imports(tmp_path), {})
    assert [complaint.split()[0] for complaint in found] == ["nodecache.resolve.a"]


def test_cycle_is_found(tmp_path: Path) -> None:
    write(tmp_path, "wire/a.py", "from nodecache.wire import b")
    write(tmp_path, "wire/b.py", "from nodecache.wire.a import thing")
    assert set(find_cycle(read_imports(tmp_path))) == {"nodecache.wire.a", "nodecache.wire.b"}


def write(root: Path, path: str, source: str) -> None:
    """Writes a module of a make-believe package."""
    file = root / PACKAGE / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(source)
