"""The Caddyfile grammar: which tree a text becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nodecache.config.corefile import (
    Block,
    Directive,
    Reader,
    decode_text,
    encode_text,
    parse_corefile,
)
from nodecache.config.lexer import Report

Tree = list[tuple[list[str], list[object]]]


def parse(
    text: str, reader: Reader, environ: Mapping[str, str] | None = None
) -> tuple[tuple[Block, ...], Report]:
    report = Report()
    return parse_corefile(text, "etc/Corefile", environ or {}, reader, report), report


def outline(blocks: tuple[Block, ...]) -> Tree:
    """Words only, without places."""
    return [
        ([key.text for key in block.keys], [_outline(item) for item in block.directives])
        for block in blocks
    ]


def _outline(directive: Directive) -> object:
    words = [directive.name.text, *(word.text for word in directive.arguments)]
    if directive.body is None:
        return words
    return [*words, [_outline(item) for item in directive.body]]


@pytest.fixture(scope="session")
def no_files(make_reader: Callable[..., Reader]) -> Reader:
    return make_reader({})


@pytest.fixture(scope="session")
def tree_of(make_reader: Callable[..., Reader]) -> Callable[..., Tree]:
    """Text -> outline; any fault fails the test."""

    def read(
        text: str, files: Mapping[str, str] | None = None, environ: Mapping[str, str] | None = None
    ) -> Tree:
        blocks, report = parse(text, make_reader(files or {}), environ)
        assert report.faults == []
        return outline(blocks)

    return read


TreeOf = Callable[..., Tree]


def test_block_with_directives_and_options(tree_of: TreeOf) -> None:
    text = ".:53 {\n  errors\n  forward . 10.0.0.1 {\n    force_tcp\n  }\n}\n"
    assert tree_of(text) == [
        ([".:53"], [["errors"], ["forward", ".", "10.0.0.1", [["force_tcp"]]]])
    ]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("a b c {", "a b c"),
        ("a, b, c {", "a b c"),
        ("a,\nb,\nc {", "a b c"),
        ("a b\tc\n{", "a b c"),
        ("a # first\n{", "a"),
        ("a,b {", "a,b"),
    ],
)
def test_keys_end_at_the_brace(keys: str, expected: str, tree_of: TreeOf) -> None:
    ((found, directives),) = tree_of(f"{keys}\nerrors\n}}\n")
    assert found == expected.split()
    assert directives == [["errors"]]


def test_file_without_braces_is_one_block(tree_of: TreeOf) -> None:
    text = ".:53\nerrors\nforward . 10.0.0.1 {\n  force_tcp\n}\n"
    assert tree_of(text) == [
        ([".:53"], [["errors"], ["forward", ".", "10.0.0.1", [["force_tcp"]]]])
    ]


def test_block_without_key_is_kept_without_keys(tree_of: TreeOf) -> None:
    assert tree_of("{\n  errors\n}\n") == [([], [["errors"]])]


def test_empty_braces_may_share_a_line(tree_of: TreeOf) -> None:
    assert tree_of(". { }\na {\n  cache { }\n}\n") == [
        (
            [
                ".",
            ],
            [],
        ),
        (["a"], [["cache", []]]),
    ]


def test_comments_end_their_line_even_inside_a_word(tree_of: TreeOf) -> None:
    assert tree_of("# a\n. { # b }\n  errors#c\n  # d\n}\n") == [(["."], [["errors"]])]


def test_quotes_hold_blanks_braces_hashes_and_quotes(tree_of: TreeOf) -> None:
    text = '. {\n  log "a b" "{" "#" "say \\"x\\"" "back\\\\slash\\d" ""\n}\n'
    assert tree_of(text) == [(["."], [["log", "a b", "{", "#", 'say "x"', "back\\\\slash\\d", ""]])]


def test_quoted_word_may_span_lines_and_places_stay_right(no_files: Reader) -> None:
    (block,), report = parse('. {\n  log "a\nb" c\n  d\n}\n', no_files)
    assert report.faults == []
    log, following = block.directives
    assert log.arguments[0].text == "a\nb"
    assert (log.arguments[1].line, log.arguments[1].column) == (3, 4)
    assert (following.name.line, following.name.column) == (4, 3)


def test_every_word_knows_its_place(no_files: Reader) -> None:
    (block,), _ = parse("\n  a.example {\n\tcache 30\n}\n", no_files)
    assert (block.place.file, block.place.line, block.place.column) == ("etc/Corefile", 2, 3)
    (cache,) = block.directives
    assert (cache.name.line, cache.name.column) == (3, 2)
    assert (cache.arguments[0].line, cache.arguments[0].column) == (3, 8)


@pytest.mark.parametrize(
    "octets",
    [
        b". {\r\n  errors\r\n}\r\n",
        b". {\n  errors\n}",
        b"\xef\xbb\xbf. {\n  errors\n}\n",
        b"# first\n\xef\xbb\xbf. {\n  errors\n}\n\xef\xbb\xbf",
        b". { # caf\xe9, \xff and \xc3\n  errors # \x00\x1b[31m\n}\n",
        b". {\n  errors # " + "\N{LINE SEPARATOR}\x85\N{NO-BREAK SPACE}".encode() + b"\n}\n",
        b". {\n  # " + b"x" * 100_000 + b"\n  errors\n}\n",
    ],
    ids=["CR LF", "no end of line", "BOM", "BOM within", "Latin-1", "line separator", "long line"],
)
def test_bytes_that_do_not_matter_change_nothing(octets: bytes, tree_of: TreeOf) -> None:
    text = decode_text(octets)
    assert tree_of(text) == [(["."], [["errors"]])]
    assert encode_text(text) == octets.replace(b"\xef\xbb\xbf", b"")


def test_octet_that_is_no_utf8_is_in_a_word_what_go_makes_of_it(tree_of: TreeOf) -> None:
    text = decode_text(b'. {\n  log "gr\xf6\xdfe {$X}"\n}\n')
    tree = tree_of(text, environ={"X": "\udce9"})
    assert tree == [(["."], [["log", "gr\ufffd\ufffde \ufffd"]])]
    str(tree).encode()  # nothing that encodes a word later on can fail


def test_environment_fills_both_forms(tree_of: TreeOf) -> None:
    text = "{$ZONE}:{%PORT%} {\n  forward . {$A}{$B}\n}\n"
    environ = {"ZONE": "a.example", "PORT": "54", "A": "10.0.0", "B": ".1"}
    assert tree_of(text, environ=environ) == [(["a.example:54"], [["forward", ".", "10.0.0.1"]])]


def test_environment_is_no_syntax(tree_of: TreeOf) -> None:
    environ = {"A": "{", "B": "x y", "C": "{$A}"}
    assert tree_of(". {\n  log {$A} {$B} {$C}\n}\n", environ=environ) == [
        (["."], [["log", "{", "x y", "{$A}"]])
    ]


def test_missing_environment_is_empty_with_a_warning(no_files: Reader) -> None:
    (block,), report = parse(". {\n  bind {$NODE}\n}\n", no_files)
    assert [word.text for word in block.directives[0].arguments] == [""]
    assert report.warnings == [
        "etc/Corefile:2:8: environment variable 'NODE' is not set and counts as empty"
    ]


def test_import_of_a_file_in_and_outside_of_blocks(tree_of: TreeOf) -> None:
    files = {
        "etc/more": "cache 30\n",
        "/zones/all": "a {\n  import one\n}\n",
        "/zones/one": "errors\n",
    }
    text = "import /zones/all\n. {\n  import more\n}\n"
    assert tree_of(text, files) == [(["a"], [["errors"]]), (["."], [["cache", "30"]])]


def test_import_by_pattern_takes_files_in_order(tree_of: TreeOf) -> None:
    files = {"etc/b.conf": "b {\n}\n", "etc/a.conf": "a {\n}\n", "etc/c.other": "c {\n}\n"}
    assert tree_of("import *.conf\n", files) == [(["a"], []), (["b"], [])]


def test_pattern_without_match_is_a_warning(no_files: Reader) -> None:
    blocks, report = parse("import stub/*.conf\n. {\n}\n", no_files)
    assert len(blocks) == 1
    assert report.faults == []
    assert report.warnings == ["etc/Corefile:1:8: no file matches 'etc/stub/*.conf'"]


def test_file_may_be_imported_twice(tree_of: TreeOf) -> None:
    text = "a {\n  import one\n}\nb {\n  import one\n}\n"
    assert tree_of(text, {"etc/one": "errors\n"}) == [(["a"], [["errors"]]), (["b"], [["errors"]])]


def test_snippet_with_arguments(tree_of: TreeOf) -> None:
    snippet = "(up) {\n  forward {args[0]} {args[1]}:53 {\n    force_tcp\n  }\n}\n"
    text = snippet + ". {\n  import up . 10.0.0.1\n}\n"
    assert tree_of(text) == [(["."], [["forward", ".", "10.0.0.1:53", [["force_tcp"]]]])]


def test_snippet_may_hold_whole_blocks_and_other_snippets(tree_of: TreeOf) -> None:
    text = "(e) {\n  errors\n}\n(all) {\n  a {\n    import e\n  }\n}\nimport all\n"
    assert tree_of(text) == [(["a"], [["errors"]])]


def test_faults_in_an_imported_file_name_that_file(make_reader: Callable[..., Reader]) -> None:
    _, report = parse(". {\n  import x\n}\n", make_reader({"etc/x": 'log "a\n'}))
    assert [str(fault) for fault in report.faults] == [
        "etc/x:1:5: this quote is never closed: add '\"'"
    ]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (PermissionError(13, "Permission denied"), "Permission denied"),
        (ValueError("it is longer than 4 MiB"), "it is longer than 4 MiB"),
    ],
)
def test_unreadable_import_is_a_fault(
    error: Exception, text: str, make_reader: Callable[..., Reader]
) -> None:
    _, report = parse(". {\n  import x\n}\n", make_reader({"etc/x": error}))
    assert [str(fault) for fault in report.faults] == [
        f"etc/Corefile:2:10: cannot read 'etc/x': {text}"
    ]


def test_snippet_that_multiplies_itself_is_bounded(no_files: Reader) -> None:
    text = (
        "".join(f"(s{n}) {{\n" + f"  import s{n + 1}\n" * 30 + "}\n" for n in range(8))
        + "(s8) {\n  errors\n}\n. {\n  import s0\n}\n"
    )
    _, report = parse(text, no_files)
    assert [fault.text for fault in report.faults] == [
        "more than 20,000 lines with all imports; the rest is not read"
    ]


def test_text_above_a_mebibyte_is_refused(no_files: Reader) -> None:
    blocks, report = parse("#" * (1024 * 1024 + 1), no_files)
    assert blocks == ()
    assert [str(fault) for fault in report.faults] == [
        "etc/Corefile: longer than 1 MiB; split it up or remove what is not needed"
    ]


def test_word_above_4096_characters_is_refused(no_files: Reader) -> None:
    _, report = parse(". {\n  log " + "x" * 4097 + "\n}\n", no_files)
    assert [str(fault) for fault in report.faults] == [
        "etc/Corefile:2:7: a word has at most 4096 characters"
    ]


def test_the_body_may_begin_on_the_line_of_its_brace(no_files: Reader) -> None:
    blocks, report = parse(". { errors\n  cache 30 { success 100\n  }\n}\n", no_files)
    assert not report.faults
    body = [["success", "100"]]
    assert outline(blocks) == [(["."], [["errors"], ["cache", "30", body]])]


def test_reading_goes_on_after_a_fault(no_files: Reader) -> None:
    text = '. { errors\n  log "x\n  cache 30 }\na {\n  errors\n}\n'
    blocks, report = parse(text, no_files)
    assert sorted(fault.line for fault in report.faults) == [2, 3]
    assert outline(blocks) == [
        (["."], [["errors"], ["log"], ["cache", "30"]]),
        (["a"], [["errors"]]),
    ]


# Pieces out of which the grammar is made, so that random text reaches all of it.
PIECES = st.sampled_from(
    [" ", "\n", "\t", "{", "}", "{ }", '"', "\\", "#", ",", "import", "(s)", "s", "x", "*",
     "{$E}", "{%E%}", "{args[0]}", "a.example", ":53", "\r\n", "\0", "\u2028", "\ud800"]
)  # fmt: skip
TEXTS = st.one_of(st.text(), st.lists(PIECES, max_size=60).map("".join))


@given(text=TEXTS, imported=TEXTS)
@example(text="(s) {\nimport s\nimport s\n}\nimport s\n", imported="")
@example(text='""{\n', imported="")
@example(text="import \0\n", imported="")
@example(text="{\n" * 12, imported="")
@example(text="a,", imported="import x")
def test_no_text_makes_the_parser_raise(
    text: str, imported: str, make_reader: Callable[..., Reader]
) -> None:
    reader = make_reader({"etc/x": imported, "etc/s": text})
    blocks, report = parse(text, reader, {"E": imported})
    places = [(fault.line, fault.column) for fault in report.faults]
    assert all(line >= 0 and column >= 0 for line, column in places)
    assert len(report.faults) <= 100
    assert all(block.keys or block.place for block in blocks)


@given(text=TEXTS)
def test_no_text_makes_the_whole_configuration_raise_but_for_faults(
    text: str, find_faults: Callable[..., list[str]]
) -> None:
    assert all(fault.isprintable() for fault in find_faults(text))


WORDS = st.sampled_from(
    ["bind", "cache", "forward", "errors", "prometheus", "health", "success", "denial", "except",
     "prefetch", "serve_stale", "servfail", "disable", "nxdomain_cut", "tls", "policy", "next",
     "health_check", "failover", "consolidate", "lameduck", "domain", ".", "10.0.0.1", "0", "%",
     "tls://[::1]%a:1", "-1", "30", "5m", "10%", "(", "\"", "/etc/resolv.conf", "a/b", "::1/64",
     "]", "[", ""]
)  # fmt: skip
LINES = st.lists(st.lists(WORDS, min_size=1, max_size=6).map(" ".join), max_size=8)


@given(lines=LINES, resolv_conf=st.text())
def test_no_directive_raises_on_any_arguments(
    lines: list[str], resolv_conf: str, find_faults: Callable[..., list[str]]
) -> None:
    body = "\n".join(f"{line} {{\n{line}\n}}\n{line}" for line in lines)
    faults = find_faults(f". {{\n{body}\n}}\n", {"/etc/resolv.conf": resolv_conf, "a/b": ""})
    assert all(fault.startswith("Corefile:") for fault in faults)


@pytest.mark.parametrize("piece", ["a\n", "} ", "a {\n", '"\\" ', "a, ", "{$E} ", "__PILLAR__"])
def test_large_repetitive_text_ends_with_bounded_faults(
    piece: str, find_faults: Callable[..., list[str]]
) -> None:
    faults = find_faults(piece * (100_000 // len(piece)), environ={"E": "x" * 4000})
    assert 1 <= len(faults) <= 100


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            ". {\n  forward . 10.0.0.1 {\n    force_tcp\n  }\n# end\n",
            "1:3: this '{' is never closed: add a line with '}'",
        ),
        (
            ". {\n  forward . 10.0.0.1 {\n    force_tcp\n  }\n}\n}\n}\n",
            "6:1: this '}' closes nothing: remove it",
        ),
        (
            ".\nforward . 10.0.0.1 {\n    force_tcp\n}\n}\n",
            "5:1: this '}' closes nothing that was opened: line 1 lacks its '{'",
        ),
    ],
    ids=["last one missing", "too many at the end", "never opened"],
)
def test_braces_that_coredns_does_not_miss_are_warned_of(
    text: str, warning: str, no_files: Reader
) -> None:
    blocks, report = parse(text, no_files)
    assert outline(blocks) == [(["."], [["forward", ".", "10.0.0.1", [["force_tcp"]]]])]
    assert (report.faults, report.warnings) == ([], [f"etc/Corefile:{warning}"])


@pytest.mark.parametrize(
    "text",
    [
        ". {\n  forward . 10.0.0.1\n",
        ". {\n  forward . 10.0.0.1 {\n    force_tcp\n",
        ". {\n  forward . 10.0.0.1 {\n  }\n  errors\n",
        ". {\n  errors\n}\n}\nb.example {\n  errors\n}\n",
        "(s) {\n  forward . 10.0.0.1 {\n  }\n",
    ],
)
def test_braces_that_coredns_misses_are_faults(text: str, no_files: Reader) -> None:
    _, report = parse(text, no_files)
    assert report.faults


def imports(name: str, reader: Reader, folder: str | None) -> tuple[Tree, Report]:
    report = Report()
    text = f". {{\n  import {name}\n}}\n"
    return outline(parse_corefile(text, "base/Corefile", {}, reader, report, folder)), report


def test_imports_begin_at_the_folder_that_is_given(make_reader: Callable[..., Reader]) -> None:
    reader = make_reader(
        {
            "conf/custom/a.override": "import b",
            "conf/custom/b": "errors",
            "base/custom/a.override": "loop",
            "conf/b": "whoami",
        }
    )
    for folder, found in (("conf", "errors"), ("base", "loop"), (None, "loop")):
        for name in ("custom/*.override", "custom/a.override"):
            tree, report = imports(name, reader, folder)
            assert tree == [(["."], [[found]])]
            assert (report.faults, report.warnings) == ([], [])


def test_import_that_would_be_found_beside_the_template_names_the_way_out(
    make_reader: Callable[..., Reader],
) -> None:
    reader = make_reader({"base/custom/a.override": "loop"})
    hint = (
        "; imports begin at the folder of -conf, as in node-cache: for what lies beside"
        " 'base/Corefile' write 'import base/custom/"
    )
    _, report = imports("custom/*.override", reader, "conf")
    assert report.warnings == [
        f"base/Corefile:2:10: no file matches 'conf/custom/*.override'{hint}*.override'"
    ]
    _, report = imports("custom/a.override", reader, "conf")
    assert [str(fault) for fault in report.faults] == [
        (
            "base/Corefile:2:10: there is no snippet and no file 'custom/a.override'"
            f" (looked for 'conf/custom/a.override'){hint}a.override'"
        )
    ]
    _, report = imports("none/*.override", reader, "conf")
    assert report.warnings == ["base/Corefile:2:10: no file matches 'conf/none/*.override'"]
