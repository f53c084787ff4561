from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache.config.corefile import decode_text
from nodecache.config.recording import Recording

RECORDING = Recording(
    {"/etc/Corefile": ". {\n}\n", "hosts": decode_text(b"10.0.0.1 caf\xe9\n")},
    {"/etc/more/*": ["/etc/more/a"], "/etc/none/*": []},
    ["/etc/more"],
)
FIELDS = json.loads(RECORDING.to_json())


def test_recording_survives_the_way_to_a_file() -> None:
    text = RECORDING.to_json()
    assert text.isascii()
    assert Recording.from_json(text) == RECORDING


def test_what_was_read_is_read_again() -> None:
    assert RECORDING.read_text("hosts") == "10.0.0.1 caf\udce9\n"
    assert RECORDING.glob("/etc/more/*") == ["/etc/more/a"]
    assert [RECORDING.exists(path) for path in ("hosts", "/etc/more")] == [True, True]


def test_what_was_not_read_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        RECORDING.read_text("/etc/resolv.conf")
    assert RECORDING.glob("/etc/*") == []
    assert not RECORDING.exists("/etc/resolv.conf")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "[" * 100_000, "{}", *(
        json.dumps({**FIELDS, name: value})
        for name, value in [
            ("format", 2), ("format", None), ("more", 1), ("texts", []), ("texts", {"a": 1}),
            ("texts", {"a": "\ud800"}), ("texts", {"\ud800": "a"}), ("globs", {"*": "a"}),
            ("globs", {"*": [1]}), ("globs", None), ("existing", "a"), ("existing", [None]),
        ]
    )],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 # each has its own words
        Recording.from_json(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries({"format": st.just(1), "texts": JSON, "globs": JSON, "existing": JSON})
)
def test_whatever_is_in_the_file_is_a_recording_or_refused(fields: dict[str, object]) -> None:
    try:
        recording = Recording.from_json(json.dumps(fields))
    except ValueError:
        return
    assert Recording.from_json(recording.to_json()) == recording
