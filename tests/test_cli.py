"""What a user of the command sees: exit codes, messages, and the file that -conf names."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import nodecache
from nodecache.cli import main
from nodecache.config.model import Config
from nodecache.errors import SocketError
from nodecache.loading import FileReader, Source

COMMANDS = "check, cleanup, doctor, explain, help, top, webhook"
GOOD = ".:5305 {\n    bind 127.0.0.15\n    forward . 127.0.0.53:5300\n}\n"


class FakeDaemon(ModuleType):
    """Stands in for nodecache.process.start: keeps what it was told to run."""

    def __init__(self) -> None:
        super().__init__("nodecache.process.start")
        self.configs: list[Config] = []
        self.error: SocketError | None = None

    def run(self, config: Config, source: Source, link: object) -> int:
        assert link is None
        assert source.reader.exists(config.blocks[0].file)
        self.configs.append(config)
        if self.error:
            raise self.error
        return 7


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> FakeDaemon:
    fake = FakeDaemon()
    monkeypatch.setitem(sys.modules, "nodecache.process.start", fake)
    return fake


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "empty").mkdir()
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


def words(*more: str) -> list[str]:
    common = "-localip 127.0.0.15 -setupinterface=false -setupiptables=false -kubednscm ../empty"
    return [*common.split(), *more]


def test_good_configuration_runs_and_hands_back_the_exit_code(
    folder: Path, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "Corefile").write_text(GOOD)
    assert main(words("-basecorefile", "Corefile", "-conf", "Corefile")) == 7
    (config,) = daemon.configs
    assert config.blocks[0].port == 5305
    assert config.warnings == ()
    assert capsys.readouterr() == ("", "")
    assert (folder / "Corefile").read_text() == GOOD
    assert list(folder.iterdir()) == [folder / "Corefile"]


def test_words_of_the_process_are_the_default(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["nodecache", "-version"])
    assert main() == 0
    assert capsys.readouterr().out == f"nodecache {nodecache.__version__}\n"


def test_faults_of_flags_and_files_come_together_with_excerpts(
    folder: Path, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "base").write_text(".:53 {\n\tcach 30\n    import more\n}\n")
    (folder / "more").write_text("expire\n")
    assert main(words("-basecorefile", "base", "-quite")) == 2
    assert daemon.configs == []
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "command line: unknown flag '-quite'; did you mean '-quiet'?\n"
        "base:2:2: unknown directive 'cach'; did you mean 'cache'?\n"
        "    2 |         cach 30\n"
        "                ^\n"
        "more:1:1: unknown directive 'expire'; see -plugins\n"
        "    1 | expire\n"
        "        ^\n"
    )


def test_excerpt_shows_the_line_as_written_and_cuts_a_long_one(
    folder: Path, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "base").write_text(
        ". {\n    forward " + "x" * 300 + " __PILLAR__UPSTREAM__SERVERS__ \x1b!\n}\n"
    )
    assert main(words("-basecorefile", "base")) == 2
    *_, excerpt, caret = capsys.readouterr().err.splitlines()
    assert excerpt.endswith(" __PILLAR__UPSTREAM__SERVERS__  !")
    assert len(excerpt) < 140
    assert daemon.configs == []
    assert caret.endswith("^")


def test_unknown_file_flag_does_not_also_fault_the_default_file(
    folder: Path, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words("-basecorfile", str(folder / "base"), "-conf", "missing")) == 2
    assert capsys.readouterr().err.splitlines() == [
        "command line: unknown flag '-basecorfile'; did you mean '-basecorefile'?"
    ]
    assert daemon.configs == []


def test_wrong_flag_alone_is_refused_though_the_files_are_right(
    folder: Path, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "base").write_text(GOOD)
    assert main(words("-basecorefile", "base", "-p", "0")) == 2
    assert capsys.readouterr().err.startswith("command line: -p: 0 is out of range")
    assert daemon.configs == []


def test_fault_without_its_file_at_hand_has_no_excerpt(
    folder: Path,
    daemon: FakeDaemon,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = FileReader.read_text
    paths: list[str] = []

    def read_each_once(reader: FileReader, path: str) -> str:
        if path in paths:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        paths.append(path)
        return real(reader, path)

    (folder / "base").write_text("import more\n")
    (folder / "more").write_text(". {\n    expire\n}\n")
    monkeypatch.setattr(FileReader, "read_text", read_each_once)
    assert main(words("-basecorefile", "base")) == 2
    assert capsys.readouterr().err == "more:2:5: unknown directive 'expire'; see -plugins\n"
    assert daemon.configs == []


def test_missing_corefile_is_a_configuration_fault(
    folder: Path, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words("-basecorefile", "missing")) == 2
    assert capsys.readouterr().err == (
        "missing: cannot read the Corefile: No such file or directory;"
        " name one with -basecorefile FILE\n"
    )
    assert daemon.configs == []


def test_address_that_cannot_be_used_ends_with_one(
    folder: Path, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "Corefile").write_text(GOOD)
    daemon.error = SocketError("cannot listen on 127.0.0.15:5305: choose another port")
    assert main(words("-basecorefile", "Corefile")) == 1
    assert capsys.readouterr().err == (
        "nodecache: cannot listen on 127.0.0.15:5305: choose another port\n"
    )


def test_filled_corefile_is_written_to_conf(folder: Path, daemon: FakeDaemon) -> None:
    (folder / "base").write_text(GOOD.replace("127.0.0.15", "__PILLAR__LOCAL__DNS__"))
    (folder / "conf").write_text("old")
    assert main(words("-basecorefile", "base", "-conf", "conf")) == 7
    assert (folder / "conf").read_text() == GOOD
    assert sorted(path.name for path in folder.iterdir()) == ["base", "conf"]
    assert daemon.configs[0].blocks[0].file == "base"


def test_conf_is_not_written_when_the_configuration_is_wrong(
    folder: Path, daemon: FakeDaemon
) -> None:
    (folder / "base").write_text("nonsense {\n    nonsense\n}\n")
    assert main(words("-basecorefile", "base", "-conf", "conf")) == 2
    assert not (folder / "conf").exists()
    assert daemon.configs == []


def test_conf_that_is_another_name_of_the_template_is_left_alone(
    folder: Path, daemon: FakeDaemon
) -> None:
    text = GOOD.replace("127.0.0.15", "__PILLAR__LOCAL__DNS__")
    (folder / "base").write_text(text)
    (folder / "conf").symlink_to("base")
    assert main(words("-basecorefile", "base", "-conf", "conf")) == 7
    assert (folder / "base").read_text() == text
    assert daemon.configs[0].warnings == ()


def test_conf_that_cannot_be_written_is_a_warning(folder: Path, daemon: FakeDaemon) -> None:
    (folder / "base").write_text(GOOD)
    assert main(words("-basecorefile", "base", "-conf", "nowhere/conf")) == 7
    assert daemon.configs[0].warnings == (
        "cannot write nowhere/conf: No such file or directory; serving goes on without it",
    )


def test_failed_write_leaves_the_old_file(
    folder: Path, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace(_self: Path, _target: Path) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    (folder / "base").write_text(GOOD)
    (folder / "conf").write_text("old")
    monkeypatch.setattr(Path, "replace", replace)
    assert main(words("-basecorefile", "base", "-conf", "conf")) == 7
    assert (folder / "conf").read_text() == "old"
    assert sorted(path.name for path in folder.iterdir()) == ["base", "conf"]
    assert "No space left" in daemon.configs[0].warnings[0]


def test_plugins_lists_all_directives_and_their_effect(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-plugins"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert "cache         acts" in rows
    assert "trace         refused" in rows


def test_help_goes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-help"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("nodecache answers DNS queries")
    assert err == ""


def test_module_runs_without_importing_the_event_loop() -> None:
    script = (
        "import sys; sys.argv = ['nodecache', '-version'];"
        " from nodecache.cli import main; code = main();"
        " heavy = {'asyncio', 'uvloop', 'socket', 'pyroute2', 'dnslib', 'prometheus_client'};"
        " print(sorted(heavy & sys.modules.keys())); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"nodecache {nodecache.__version__}\n[]\n"


def test_python_dash_m_is_the_command() -> None:
    command = [sys.executable, "-m", "nodecache", "-xyzzy"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "command line: unknown flag '-xyzzy'; see -help\n" in done.stderr


def test_reader_refuses_what_is_too_long_or_no_file(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * (4 * 1024 * 1024 + 1))
    reader = FileReader()
    for name in ("big", "a\0b"):
        with pytest.raises(ValueError, match=r"4 MiB|null"):
            reader.read_text(str(tmp_path / name))
    with pytest.raises(IsADirectoryError):
        reader.read_text(str(tmp_path))


def test_reader_lists_visible_files_in_order(tmp_path: Path) -> None:
    for name in ("b", "a", ".hidden"):
        (tmp_path / name).touch()
    reader = FileReader()
    assert reader.glob(f"{tmp_path}/*") == [f"{tmp_path}/a", f"{tmp_path}/b"]
    assert reader.exists(str(tmp_path / "a"))
    assert not reader.exists(str(tmp_path / "c"))
    assert not reader.exists("\0")
    assert not reader.exists("x" * 5000)


def test_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help"]) == 0
    out, err = capsys.readouterr()
    assert "  nodecache check Corefile " in out
    assert "  nodecache explain Corefile " in out
    assert "  nodecache cleanup " in out
    assert "  nodecache webhook " in out
    assert err == ""
    assert main(["-help"]) == 0
    assert capsys.readouterr().out == out
    assert main(["help", "help"]) == 0
    assert capsys.readouterr().out == out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["chekc", "Corefile"], "there is no command 'chekc'; did you mean 'check'?"),
        (["serve"], f"there is no command 'serve'; there are: {COMMANDS}"),
        (["help", "explian"], "there is no command 'explian'; did you mean 'explain'?"),
        (["\x1b[2J"], f"there is no command '\\x1b[2J'; there are: {COMMANDS}"),
    ],
)
def test_unknown_command_is_named(
    words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert capsys.readouterr() == ("", f"nodecache: {text}\n")


def test_broken_config_map_is_left_out_at_start(folder: Path, daemon: FakeDaemon) -> None:
    (folder / "base").write_text(GOOD)
    (folder.parent / "empty" / "stubDomains").write_text("{")
    assert main(words("-basecorefile", "base")) == 7
    (warning,) = daemon.configs[0].warnings
    assert warning.startswith("../empty/stubDomains:1:2: ")
    assert warning.endswith("; the ConfigMap is left out")
