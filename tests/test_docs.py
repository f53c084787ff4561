"""The pages for operators are those of the present tables, and leave nothing out."""

from __future__ import annotations

import pytest

from docs import generate
from nodecache.config.flag_table import TABLE
from nodecache.config.reading import Arguments, Option
from nodecache.directives.table import PLUGINS
from nodecache.telemetry.catalogue import CATALOGUE, DROP_REASONS

FLAGS = [name for flags in TABLE.values() for flag in flags for name in flag.names]


@pytest.mark.parametrize("name", generate.PAGES)
def test_page_is_current(name: str) -> None:
    text = (generate.FOLDER / name).read_text(encoding="utf-8")
    assert text == generate.PAGES[name](), "run `make docs`"


def test_every_series_has_its_line() -> None:
    text = generate.metrics_page()
    assert [name for name in CATALOGUE if f"| `{name}` | " not in text] == []
    assert [reason for reason in DROP_REASONS if f"| `{reason}` | " not in text] == []


def test_every_flag_has_its_line() -> None:
    text = generate.settings_page()
    assert [name for name in FLAGS if f"`-{name}`" not in text] == []


def test_every_directive_has_its_section_and_a_sentence() -> None:
    text = generate.settings_page()
    assert [name for name in PLUGINS if f"\n### `{name}`\n" not in text] == []
    assert PLUGINS.keys() - generate.DIRECTIVE_TEXTS.keys() == set()


def test_every_bound_says_what_it_bounds() -> None:
    names = generate.all_limits().keys()
    assert names - generate.LIMIT_TEXTS.keys() == set(), "say so in docs/generate.py"


@pytest.mark.parametrize(
    ("directive", "option"),
    [
        ("bind", "except IP|INTERFACE..."),
        ("cache", "keepttl"),
        ("errors", "stacktrace"),
        ("forward", "force_tcp"),
        ("health", "lameduck DURATION"),
    ],
)
def test_options_are_found_where_the_readers_keep_them(directive: str, option: str) -> None:
    assert option in generate.options_of(PLUGINS[directive])
    assert f"* `{option}`\n" in generate.settings_page()


def test_options_that_are_only_refused_are_not_shown() -> None:
    def _refuse_colour(_arguments: Arguments, value: None) -> None:
        return value

    def _read_size(_arguments: Arguments, value: None) -> None:
        return value

    refused = Option("colour NAME", _refuse_colour)
    elsewhere = Option("size N", _read_size)
    table: dict[object, object] = {
        "colour": refused,
        "width": elsewhere,
        "size": elsewhere,
        "pair": ("pair A B", _read_size),
        "number": 5,
    }
    assert list(generate._usages_in(table)) == ["size N", "pair A B"]


def test_directive_without_options_shows_none() -> None:
    assert generate.options_of(PLUGINS["loop"]) == []


def test_cell_with_a_bar_stays_one_cell() -> None:
    rows = [line for line in generate.settings_page().splitlines() if "nxdomain-scope" in line]
    assert rows == [row for row in rows if "cluster\\|all" in row]
