"""``nodecache check``: what it says, where it says it, and its exit codes for scripts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nodecache.cli import main

GOOD = ".:5305 {\n    bind 127.0.0.15\n    forward . 127.0.0.53:5300\n}\n"
WRONG = ".:53 {\n    cach 30\n    forward . 10.0.0.1 {\n        expire 10\n    }\n}\n"
WARNED = ".:53 {\n    forward . 10.0.0.1\n    import nothing/*\n}\n"
IMPORTS = ", imports from . (the daemon: from the folder of -conf)"
WARNING = (
    "{file}:3:12: warning: no file matches 'nothing/*'\n"
    "    3 |     import nothing/*\n"
    "                   ^\n"
)
ARGS = ["-localip", "127.0.0.15", "-setupinterface=false", "-setupiptables=false"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nodecache.config.kubedns._FOLDER", str(tmp_path / "no-kube-dns"))
    for name in [name for name in os.environ if name.endswith("_SERVICE_HOST")]:
        monkeypatch.delenv(name)
    return tmp_path


def config_map(folder: Path, **keys: str) -> Path:
    path = folder / "kube-dns"
    path.mkdir()
    for name, text in keys.items():
        (path / name).write_text(text)
    return path


def test_good_file_gets_one_line_and_zero(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "Corefile").write_text(GOOD + "a.example b.example:54 {\n}\n")
    assert main(["check", "Corefile"]) == 0
    assert capsys.readouterr() == ("Corefile: good; 3 server blocks\n", "")


def test_all_faults_are_shown_on_standard_output_with_their_lines(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "Corefile").write_text(WRONG)
    assert main(["check", "Corefile"]) == 2
    out, err = capsys.readouterr()
    assert err == ""
    assert out == (
        "Corefile:2:5: unknown directive 'cach'; did you mean 'cache'?\n"
        "    2 |     cach 30\n"
        "            ^\n"
        "Corefile:4:16: '10' has no unit: write 10s for seconds; write 'expire DURATION'\n"
        "    4 |         expire 10\n"
        "                       ^\n"
        "Corefile: 2 faults\n"
    )


def test_fault_behind_a_variable_is_shown_where_the_user_wrote_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "Corefile").write_text(
        ".:53 {\n    bind __PILLAR__LOCAL__DNS__ nowhere\n    forward . 10.0.0.1\n}\n"
    )
    assert main(["check", "Corefile"]) == 2
    fault, line, caret, _ = capsys.readouterr().out.splitlines()
    assert fault.startswith("Corefile:2:33: 'nowhere'")
    assert line[caret.index("^") :] == "nowhere"


def test_warnings_are_marked_and_allowed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "Corefile").write_text(WARNED)
    assert main(["check", "Corefile"]) == 0
    good = f"Corefile: good; 1 server block{IMPORTS}, 1 warning\n"
    assert capsys.readouterr().out == WARNING.format(file="Corefile") + good


@pytest.mark.parametrize("strict", ["-strict", "--strict", "-strict=true"])
def test_warnings_are_faults_for_the_strict(
    strict: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "Corefile").write_text(WARNED)
    (folder / "Goodfile").write_text(GOOD)
    assert main(["check", strict, "Corefile", "Goodfile"]) == 2
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"Corefile: good; 1 server block{IMPORTS}, 1 warning (-strict: faults)",
        "Goodfile: good; 1 server block",
    ]
    assert main(["check", strict, "Goodfile"]) == 0


def test_service_that_the_environment_lacks_is_a_warning(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "Corefile").write_text(". {\n    forward . __PILLAR__CLUSTER__DNS__\n}\n")
    assert main(["check", "-upstreamsvc", "up", "Corefile"]) == 0
    assert "Corefile:2:15: warning: the Service 'up' has no address" in capsys.readouterr().out
    monkeypatch.setenv("UP_SERVICE_HOST", "10.96.0.10")
    assert main(["check", "-strict", "-upstreamsvc", "up", "Corefile"]) == 0
    assert capsys.readouterr().out == "Corefile: good; 1 server block\n"


def test_variable_without_localip_is_filled_all_the_same(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "Corefile").write_text(
        ". {\n    bind __PILLAR__LOCAL__DNS__ __PILLAR__DNS__SERVER__\n"
        "    health __PILLAR__LOCAL__DNS__:8080\n    forward . 10.0.0.1\n}\n"
    )
    assert main(["check", "Corefile"]) == 0
    assert capsys.readouterr().out == "Corefile: good; 1 server block\n"


def test_what_cannot_be_read_is_said_on_standard_error_and_the_rest_is_checked(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "Wrongfile").write_text(WRONG)
    assert main(["check", "missing", "Wrongfile"]) == 1
    out, err = capsys.readouterr()
    assert err == "missing: cannot read this: No such file or directory\n"
    assert out.endswith("Wrongfile: 2 faults\n")
    assert "missing" not in out


def test_without_file_the_flags_name_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "Corefile").write_text(GOOD)
    for words in (["-basecorefile", "Corefile"], ["-conf=Corefile"]):
        assert main(["check", *words]) == 0
        assert capsys.readouterr().out == "Corefile: good; 1 server block\n"
    assert main(["check", "-basecorefile", "missing"]) == 1
    assert capsys.readouterr().err == (
        "missing: cannot read this: No such file or directory; name another: -basecorefile FILE\n"
    )


def test_nothing_is_written(folder: Path) -> None:
    (folder / "base").write_text(GOOD.replace("127.0.0.15", "__PILLAR__LOCAL__DNS__"))
    assert main(["check", *ARGS, "-conf", "conf", "-pidfile", "pid", "-basecorefile", "base"]) == 0
    assert [path.name for path in folder.iterdir()] == ["base"]


def test_arguments_of_a_daemonset_stand_behind_check_as_they_are(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "Corefile").write_text(GOOD)
    assert main(["check", *ARGS, "-conf", "Corefile", "-basecorefile", "missing"]) == 0
    assert capsys.readouterr().out == "Corefile: good; 1 server block\n"


def test_command_line_to_serve_with_is_judged_as_such(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "Corefile").write_text(GOOD)
    assert main(["check", "-localip", "10.0.0", "-quite", "-quiet=false", "Corefile"]) == 2
    assert capsys.readouterr().out.splitlines()[:2] == [
        "command line: -localip: '10.0.0' is no IP address",
        "command line: unknown flag '-quite'; did you mean '-quiet'?",
    ]


def test_faults_of_the_command_line_have_a_sum_of_their_own(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "Corefile").write_text(GOOD)
    assert main(["check", "-p", "0", "-conf", "-quiet", "true", "Corefile"]) == 2
    *_, flags, file = capsys.readouterr().out.splitlines()
    assert flags == "command line: 3 faults"
    assert file == "Corefile: good; 1 server block"


def test_flag_that_may_have_named_the_file_is_the_only_fault(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "-basecorfile=base", "-conf", "missing"]) == 2
    assert capsys.readouterr().out == (
        "command line: unknown flag '-basecorfile'; did you mean '-basecorefile'?\n"
        "command line: 1 fault\n"
    )


def test_behind_two_dashes_there_are_only_files(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "-odd").write_text(GOOD)
    assert main(["check", "--", "-odd"]) == 0
    assert capsys.readouterr().out == "-odd: good; 1 server block\n"


def test_imported_files_are_shown_under_their_own_names(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "Corefile").write_text("import more\n")
    (folder / "more").write_text(". {\n    expire\n}\n")
    assert main(["check", "Corefile"]) == 2
    assert capsys.readouterr().out == (
        "more:2:5: unknown directive 'expire'; see -plugins\n"
        "    2 |     expire\n"
        "            ^\n"
        "Corefile: 1 fault\n"
    )


# The kube-dns ConfigMap.


def test_folder_is_a_config_map(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = {"stubDomains": '{"a.example": ["10.0.0.1"]}', "upstreamNameservers": '["10.0.0.2"]'}
    config_map(folder, **keys)
    assert main(["check", "kube-dns"]) == 0
    assert capsys.readouterr().out == "kube-dns: good; 1 stub domain, 1 upstream\n"


def test_faults_of_a_config_map_are_shown_in_its_files(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config_map(folder, upstreamNameservers='[\n  "dns.example"\n]', stubDomain="{}")
    assert main(["check", "kube-dns"]) == 2
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("kube-dns/upstreamNameservers:1:1: upstreamNameservers has no address")
    assert out[1:3] == ["    1 | [", "        ^"]
    place = "kube-dns/upstreamNameservers:2:3"
    assert out[3].startswith(f"{place}: warning: 'dns.example' is neither IP")
    assert out[4:6] == ['    2 |   "dns.example"', "          ^"]
    assert out[6].startswith("warning: kube-dns: 'stubDomain' is no key of the kube-dns ConfigMap")
    assert out[7:] == ["kube-dns: 1 fault, 2 warnings"]


def test_config_map_beside_a_corefile_is_checked_with_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "Corefile").write_text("a.example {\n    forward . 10.0.0.1\n}\n")
    config_map(folder, stubDomains='{"a.example": ["10.0.0.1"]}')
    assert main(["check", "kube-dns"]) == 0
    assert main(["check", "-strict", "Corefile", "kube-dns"]) == 2
    out = capsys.readouterr().out.splitlines()
    place = "kube-dns/stubDomains:1:2"
    assert out[1].startswith(f"{place}: warning: zone a.example. on port 53 is already")
    assert out[-1] == "Corefile: good; 1 server block, 1 warning (-strict: faults)"


def test_two_config_maps_for_one_corefile_are_too_many(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "Corefile").write_text(GOOD)
    config_map(folder)
    (folder / "other").mkdir()
    assert main(["check", "kube-dns", "Corefile", "other"]) == 2
    assert capsys.readouterr().out.splitlines()[0] == (
        "command line: 'other' is one folder too many: a Corefile goes with one ConfigMap"
    )


# What is printed.


@pytest.mark.parametrize(
    ("line", "shown", "caret"),
    [
        ("\tcach 30", "        cach 30", "        ^"),
        ("a\tcach", "a       cach", None),
        ("  \tcach", "        cach", "        ^"),
        ("\x1b[31m\u202e", " [31m", "^"),
        ('log "\u6f22\u5b57" {bad}', 'log "\u6f22\u5b57" {bad}', " " * 11 + "^"),
        ('log "e\u0301" {bad}', 'log "e\u0301" {bad}', " " * 8 + "^"),
    ],
)
def test_caret_stands_below_the_place_whatever_stands_before(
    line: str, shown: str, caret: str | None, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "Corefile").write_text(f". {{\n{line}\n}}\n")
    assert main(["check", "Corefile"]) == 2
    out = capsys.readouterr().out
    excerpts = [text for text in out.split("\n") if text.startswith("    2 | ")]
    assert excerpts[0] == f"    2 | {shown}".rstrip()
    if caret is not None:
        assert f"\n        {caret}\n" in out
    assert "\x1b" not in out
    assert "\u202e" not in out


def test_long_line_is_cut_round_the_place(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"forward . {'10.0.0.1 ' * 20}b_d {'10.0.0.2 ' * 20}"
    (folder / "Corefile").write_text(f". {{\n{line}\n}}\n")
    assert main(["check", "Corefile"]) == 2
    out = capsys.readouterr().out.splitlines()
    found = next(n for n, text in enumerate(out) if "'b_d'" in text)
    excerpt, caret = out[found + 1 : found + 3]
    assert len(excerpt) <= 140
    assert excerpt.startswith("    2 | ...")
    assert excerpt.endswith("...")
    assert excerpt[caret.index("^") :].startswith("b_d ")


def test_name_of_a_file_cannot_act_on_the_terminal(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a\x1b[2J").write_text(GOOD)
    assert main(["check", "a\x1b[2J", "b\n"]) == 1
    assert capsys.readouterr() == (
        "a\\x1b[2J: good; 1 server block\n",
        "b\\n: cannot read this: No such file or directory\n",
    )


def test_check_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "-help"]) == 0
    out = capsys.readouterr().out
    assert main(["help", "check"]) == 0
    assert capsys.readouterr().out == out
    assert out.startswith("nodecache check says")
    assert "Exit codes: 0 good, 2 faults, 1 " in out


# As a user would.


def run(*words: str, text: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nodecache", *words]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), **environ}
    return subprocess.run(
        command,
        input=text,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=60,
    )


def test_fifo_is_read_only_where_the_user_named_it_to_be_looked_at(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    done = run("check", "-", text=f". {{\n    forward . {fifo}\n}}\n")
    assert done.returncode == 0
    assert "it is a FIFO, not a file" in done.stdout
    for flags in (("-localip", "192.0.2.1"), ("-localip", "nonsense")):
        served = run(*flags, "-keeper=false", "-basecorefile", str(fifo))
        assert served.returncode == 2


def test_python_dash_m_checks_standard_input(tmp_path: Path) -> None:
    done = run("check", "-kubednscm", str(tmp_path), "-", text=WRONG)
    assert done.returncode == 2
    assert done.stderr == ""
    assert done.stdout.splitlines()[:3] == [
        "/dev/stdin:2:5: unknown directive 'cach'; did you mean 'cache'?",
        "    2 |     cach 30",
        "            ^",
    ]
    assert done.stdout.endswith("/dev/stdin: 2 faults\n")


def test_terminal_without_unicode_is_no_trouble(tmp_path: Path) -> None:
    (tmp_path / "Corefile").write_text(". {\n    caf\u00e9\n}\n")
    done = run("check", str(tmp_path / "Corefile"), PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert "    2 |     caf\\xe9\n" in done.stdout


def test_reader_who_has_seen_enough_is_no_trouble(tmp_path: Path) -> None:
    (tmp_path / "Corefile").write_text(". {\n" + "    nonsense\n" * 100 + "}\n")
    command = f"{sys.executable} -m nodecache check {tmp_path}/Corefile | true"
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == ""


def test_event_loop_is_not_imported_for_a_check(tmp_path: Path) -> None:
    (tmp_path / "Corefile").write_text(GOOD)
    script = (
        "import sys; from nodecache.cli import main; code = main(sys.argv[1:]);"
        " heavy = {'asyncio', 'uvloop', 'socket', 'dnslib', 'prometheus_client'};"
        " print(sorted(heavy & sys.modules.keys())); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "check", str(tmp_path / "Corefile")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith("good; 1 server block\n[]\n")


def test_imports_of_a_file_begin_where_the_summary_says(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = ".:53 {\n    import custom/*.override\n}\n"
    for name, directive in (("base", "errors"), ("conf", "errors"), (".", "nonsense")):
        (folder / name / "custom").mkdir(parents=True)
        (folder / name / "custom" / "a.override").write_text(directive)
    (folder / "base" / "Corefile").write_text(text)
    good = "base/Corefile: good; 1 server block, imports from "
    assert main(["check", "base/Corefile"]) == 0
    assert capsys.readouterr().out == f"{good}base (the daemon: from the folder of -conf)\n"
    assert main(["check", "-conf", "conf/Corefile", "base/Corefile"]) == 0
    assert capsys.readouterr().out == f"{good}conf\n"
    assert main(["check", "-conf", "conf/Corefile", "-basecorefile", "base/Corefile"]) == 0
    assert capsys.readouterr().out == f"{good}conf\n"
    (folder / "input").write_text(text)
    with (folder / "input").open() as stream:
        monkeypatch.setattr("nodecache.commands.request._STANDARD_INPUT", str(folder / "input"))
        monkeypatch.setattr("sys.stdin", stream)
        assert main(["check", "-"]) == 2
    assert "custom/a.override:1:1: unknown directive" in capsys.readouterr().out


def test_imports_of_snippets_and_absolute_paths_need_no_folder(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "Corefile").write_text(
        f"(common) {{\n    errors\n}}\n.:53 {{\n    import common\n    import {folder}/*.x\n}}\n"
    )
    assert main(["check", "Corefile"]) == 0
    assert capsys.readouterr().out.endswith("Corefile: good; 1 server block, 1 warning\n")
