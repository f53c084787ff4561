"""Patterns against Python's own engine, which agrees with RE2 on what both understand."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache.patterns import Expression, Pattern, parse_pattern

# Loops over parts that may be empty are left out: there RE2 and Python note different groups.
_ATOMS = st.sampled_from(["a", "b", "-", "[.]", "[^a]", r"\w", "[a-c0-9]", r"\.", "(a)"])
_TIMES = st.sampled_from(["", "*", "+", "?", "*?", "+?", "{2}", "{1,3}", "{2,}"])
_PATTERNS = st.recursive(
    st.builds("{}{}".format, _ATOMS, _TIMES),
    lambda inner: st.one_of(
        st.builds("{}{}".format, inner, inner),
        st.builds("({}|{})".format, inner, inner),
        st.builds("^{}".format, inner),
    ),
    max_leaves=6,
)


@given(_PATTERNS, st.text("ab0-.c", max_size=12))
def test_match_and_groups_are_python_s(pattern: str, text: str) -> None:
    expected = re.search(pattern, text)
    found = Expression(pattern).find_groups(text)
    assert found == (expected and [expected[0], *(part or "" for part in expected.groups())])


@pytest.mark.parametrize(
    ("pattern", "text", "groups"),
    [
        (r"(?i)EXAMPLE[.]", "x.example.", ["example."]),
        (r"(?U)a+", "aaa", ["a"]),
        (r"[[:alpha:]]+[[:^digit:]]", "12ab-", ["ab-"]),
        (r"\Aa\z", "a", ["a"]),
        (r"\Qa.b\E", "a.b", ["a.b"]),
        (r"(?P<x>a)|(?<y>b)", "b", ["b", "", "b"]),
        (r"(a*)*", "aab", ["aa", "aa"]),
        ("^.$", "\N{LATIN SMALL LETTER E WITH ACUTE}", ["?"]),
        ("", "abc", [""]),
    ],
)
def test_re2_syntax_is_understood(pattern: str, text: str, groups: list[str]) -> None:
    assert Expression(pattern).find_groups(text) == groups


def test_names_of_groups_are_known() -> None:
    pattern = parse_pattern("(?P<x>a)(b)(?<y>c)")
    assert (pattern.text, pattern.groups) == ("(?P<x>a)(b)(?<y>c)", ("", "x", "", "y"))


def test_patterns_are_compared_by_value() -> None:
    assert parse_pattern("(a)") == parse_pattern("(a)")
    assert len({parse_pattern("(a)"), parse_pattern("(a)"), parse_pattern("(b)")}) == 2


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(?=a)", "'(?=' begins nothing that RE2 knows: no look-around and no back-reference"),
        ("(?P=x)", "'(?P' begins nothing that RE2 knows: no look-around and no back-reference"),
        (r"(a)\1", r"invalid escape sequence: '\1'"),
        (r"\Z", r"invalid escape sequence: '\Z'"),
        ("(", "missing ): '('"),
        ("[a\n", r"missing ]: '[a\n'"),
        ("a**", "bad repetition operator: '**'"),
        ("a{1001}", "invalid repetition size: '{1001}'"),
        ("(?P<x>a)(?<x>b)", "two groups have the name x"),
        ("a{1000}" * 4, "it takes more than 4000 steps: shorten it or its repetitions"),
        ("a{1000}" * 400, "it takes more than 4000 steps: shorten it or its repetitions"),
        ("(a)" * 101, "it has more than 100 groups: write (?:...) where none is used"),
        ("a" * 10_001, "it has more than 10000 characters"),
        (
            "\N{LATIN SMALL LETTER E WITH ACUTE}",
            "names are matched in ASCII; write an international one in its xn-- form",
        ),
    ],
)
def test_what_is_no_pattern_is_refused_with_a_reason(pattern: str, reason: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        parse_pattern(pattern)
    assert str(caught.value).split(" is no regular expression: ")[1] == reason


@given(st.text(max_size=40) | st.text("()[]{}|*+?\\^$-ab1,:P<>", max_size=40))
def test_any_text_is_a_pattern_or_refused(text: str) -> None:
    try:
        pattern = parse_pattern(text)
    except ValueError:
        return
    assert isinstance(pattern, Pattern)
    found = Expression(text).find_groups("ab1.example.")
    assert found is None or len(found) == len(pattern.groups)


@pytest.mark.parametrize("pattern", ["^((a*)*)*b$", "^(a?a?a?){30}b", "(.*)(.*)(.*)(.*)(.*)b"])
def test_evil_pattern_ends_on_a_long_name(pattern: str) -> None:
    # Python's own engine would not end here.
    assert Expression(pattern).find_groups("a" * 1000) is None
