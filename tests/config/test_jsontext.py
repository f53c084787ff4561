"""JSON text with places: the same values as Python's parser, and better manners."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache.config.jsontext import JsonTextError, Shape, Value, parse_json


def plain(value: Value) -> object:
    """The value as json.loads gives it."""
    if value.shape is Shape.OBJECT:
        return {name.text: plain(member) for name, member in value.members}
    if value.shape is Shape.LIST:
        return [plain(item) for item in value.items]
    return value.text if value.shape is Shape.STRING else json.loads(value.text)


def test_values_know_their_places() -> None:
    value = parse_json('\n {"a":\n\t["b", 1]}')
    ((name, items),) = value.members
    assert (value.line, value.column) == (2, 2)
    assert (name.line, name.column) == (2, 3)
    assert [(item.line, item.column) for item in (items, *items.items)] == [(3, 2), (3, 3), (3, 8)]


def test_equal_names_are_both_kept() -> None:
    value = parse_json('{"a": 1, "a": 2}')
    assert [(name.text, member.text) for name, member in value.members] == [("a", "1"), ("a", "2")]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "1:1: this is no JSON from here on"),
        ('{"a"', "1:5: this is no JSON from here on"),
        ('{"a" ["b"]}', "1:6: this is no JSON from here on"),
        ('["a",\n]', "2:1: this is no JSON from here on"),
        ('["a" "b"]', "1:6: this is no JSON from here on"),
        ('{"a": 1,}', "1:9: this is no JSON from here on"),
        ("{'a': 1}", "1:2: this is no JSON from here on"),
        ("{a: 1}", "1:2: this is no JSON from here on"),
        ('["a', "1:2: this is no JSON from here on"),
        ('["a\n"]', "1:4: this is no JSON from here on"),
        (r'["\x41"]', "1:3: this is no JSON from here on"),
        ("[01]", "1:3: this is no JSON from here on"),
        ("[NaN]", "1:1: this is no JSON"),
        ('["a"] x', "1:7: this is no JSON from here on"),
        ("\ufeff[]", "1:1: this is no JSON from here on"),
        ("[" * 9 + "]" * 9, "1:9: nests more than 8 deep"),
        ("[" + "1," * 20_000, "1:40002: this is no JSON from here on"),
    ],
)
def test_fault_says_where_and_what(text: str, fault: str) -> None:
    with pytest.raises(JsonTextError) as caught:
        parse_json(text)
    assert f"{caught.value.line}:{caught.value.column}: {caught.value}" == fault


@pytest.mark.parametrize("text", ["[" * 100_000, '"' + "\\" * 100_000, '{"a":' * 50_000])
def test_hostile_text_is_refused_soon(text: str) -> None:
    with pytest.raises(JsonTextError):
        parse_json(text)


def test_lone_surrogate_becomes_text_that_can_be_written() -> None:
    assert parse_json(r'"\ud800"').text.encode("utf-8") == b"?"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(JSON, st.sampled_from([None, 1]), st.booleans())
def test_what_python_writes_is_read_alike(
    value: object, indent: int | None, ensure_ascii: bool
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ensure_ascii)
    try:
        found = parse_json(text)
    except JsonTextError as error:
        assert "nests more than 8" in str(error)  # noqa: PT017
        return
    assert plain(found) == value


@given(st.text(alphabet=st.sampled_from('{}[]:,"\\ \n01ae-.tnul')))
def test_both_parsers_refuse_the_same_texts(text: str) -> None:
    def is_read(parse: object) -> bool:
        try:
            parse(text)  # type: ignore[operator]
        except (ValueError, RecursionError):
            return False
        return True

    if "[" * 8 not in text.replace(" ", ""):
        assert is_read(parse_json) == is_read(json.loads)
