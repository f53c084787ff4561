"""The table of directives, and what it asks of their folders."""

from __future__ import annotations

import inspect
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import nodecache
from nodecache.config.model import Config
from nodecache.config.reading import Twice
from nodecache.directives.lazy import LazyPlugin, Place
from nodecache.directives.table import PLUGINS
from nodecache.serving.identity import Ruled

PACKAGE = Path(nodecache.__file__).parent
LAZY = {name: plugin for name, plugin in PLUGINS.items() if isinstance(plugin, LazyPlugin)}
# Place -> module of the folder, and what is called in it with how many arguments.
WANTED = {
    Place.BEFORE_CACHE: {("act", "before_cache"): 3},
    Place.LOGS: {("act", "before_cache"): 3},
    Place.REWRITES: {("act", "rewriter"): 1},
    Place.ANSWERS: {("act", "responder"): 2},
    Place.ANSWERS_LAST: {("act", "whoami_response"): 3},
    Place.LOOKS: {("watch", "make_watch"): 3},
    Place.PAGES: {("pages", "address_of"): 1, ("pages", "make_pages"): 1},
}
# As little as there is of each.
WRITTEN = {name: name for name in LAZY} | {
    "rewrite": "rewrite type ANY HINFO",
    "template": "template ANY ANY {\n}",
}
PLAIN = ". {\nerrors\ncache 30\nforward . 192.0.2.1\nprometheus\nhealth\nready\nreload\n}\n"


def test_every_directive_of_node_cache_is_known() -> None:
    compiled_in = (
        "bind bufsize cache debug dns64 errors forward health hosts loadbalance log loop"
        " prometheus pprof reload rewrite template timeouts trace whoami"
    )
    assert set(compiled_in.split()) <= PLUGINS.keys()


def test_each_folder_has_its_line_and_each_line_its_folder() -> None:
    folders = {path.parent.name for path in (PACKAGE / "directives").glob("*/__init__.py")}
    assert folders == LAZY.keys()
    assert [name for name, plugin in LAZY.items() if plugin.name != name] == []


@pytest.mark.parametrize("name", LAZY)
def test_each_folder_has_what_its_place_asks_for(name: str) -> None:
    plugin = LAZY[name]
    wanted = {("read", "read"): 3, ("explain", "rows"): 1, **WANTED[plugin.place]}
    if plugin.counts:
        wanted["act", "hand_in"] = 3
    if plugin.notes:
        wanted["series", "note"] = 2
    found = {
        (module, function): len(
            inspect.signature(getattr(plugin.module(module), function)).parameters
        )
        for module, function in wanted
    }
    assert found == wanted
    assert plugin.module("read").USAGE.split()[0] == name
    assert plugin.syntax.usage == plugin.module("read").USAGE


def test_a_directive_is_refused_or_read() -> None:
    refused = {name for name, plugin in PLUGINS.items() if plugin.refusal}
    assert refused == {"trace", "dnstap"}
    assert {name for name, plugin in PLUGINS.items() if plugin.syntax.read is None} == refused
    assert {PLUGINS[name].twice for name in refused} == {Twice.BOTH}


def test_rules_that_answers_depend_on_are_tuples_or_say_what_they_are(
    configure: Callable[..., Config],
) -> None:
    for place in (Place.REWRITES, Place.ANSWERS):
        for name in (name for name, plugin in LAZY.items() if plugin.place is place):
            (block,) = configure(f". {{\n{WRITTEN[name]}\n}}\n").blocks
            ((_, value),) = block.settings
            assert isinstance(value, tuple | Ruled)


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )


READ = """
import sys
from time import monotonic

from nodecache.config.flags import Flags
from nodecache.counters import Counters
from nodecache.loading import Source
from nodecache.serving.blocks import Blocks
from nodecache.serving.directives import build_before_cache

config = Source(Flags(localip=("127.0.0.1",), basecorefile="Corefile"), {}).load()
Blocks(1 << 20, Counters()).apply(config, monotonic())
found = [build_before_cache(block) for block in config.blocks]
"""


def test_of_a_directive_that_no_block_has_nothing_is_imported(tmp_path: Path) -> None:
    (tmp_path / "Corefile").write_text(PLAIN)
    code = READ + (
        "begun = [n for n in sys.modules if n.startswith('nodecache.directives.')]\n"
        "print(found, *sorted({n.split('.')[2] for n in begun} | {'re2', 'dns'} & {*sys.modules}))"
    )
    made = run(code, tmp_path)
    assert (made.stdout, made.stderr) == ("[None] lazy table\n", "")


def test_no_library_is_imported_before_a_directive_needs_it() -> None:
    modules = "nodecache.directives.rewrite.act, nodecache.directives.template.act"
    code = f"import sys, {modules}; sys.exit(bool({{'re2', 'dns'}} & set(sys.modules)))"
    assert run(code, Path.cwd()).returncode == 0


IMPORT_ALL = """
import importlib, pkgutil
import nodecache

for module in pkgutil.walk_packages(nodecache.__path__, "nodecache."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""
CHECK = """
from nodecache.cli import main

print(main(["check", "Corefile"]), main(["check", "Other"]))
"""


@pytest.mark.parametrize("name", LAZY)
def test_without_folder_and_line_a_directive_is_unknown_and_all_else_goes_on(
    name: str, tmp_path: Path
) -> None:
    shutil.copytree(
        PACKAGE, tmp_path / "nodecache", ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    directives = tmp_path / "nodecache" / "directives"
    shutil.rmtree(directives / name)
    lines = (directives / "table.py").read_text().splitlines(keepends=True)
    kept = [line for line in lines if f'"{name}": lazy(' not in line]
    assert len(kept) == len(lines) - 1
    (directives / "table.py").write_text("".join(kept))
    (tmp_path / "Corefile").write_text(PLAIN)
    (tmp_path / "Other").write_text(f". {{\n{WRITTEN[name]}\n}}\n")
    made = run(IMPORT_ALL + READ + "assert found == [None]\n" + CHECK, tmp_path)  # the copy first
    assert made.stderr == ""
    assert made.stdout.endswith("0 2\n"), made.stdout
    assert f"unknown directive '{name}'" in made.stdout
