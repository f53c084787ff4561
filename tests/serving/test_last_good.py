from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from nodecache.config.flags import Flags
from nodecache.config.model import Config
from nodecache.errors import ConfigError
from nodecache.loading import Source
from nodecache.serving import last_good
from nodecache.serving.last_good import FILE_NAME, LastGood, load_first

COREFILE = """.:53 {{
    import {folder}/more/*
    cache {ttl}
    hosts {folder}/hosts {{
        fallthrough
    }}
    forward . {folder}/resolv.conf
}}
"""
STUBS = '{"stub.test": ["10.0.0.9"]}'


class FolderOfFiles:
    """What a configuration is made of, in a folder, with a -rundir beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rundir = folder / "run"
        self.file = self.rundir / FILE_NAME
        self.corefile = folder / "Corefile"
        self.stub_domains = folder / "kube-dns" / "stubDomains"
        for name in ("run", "more", "kube-dns"):
            (folder / name).mkdir()
        self.write_corefile(30)
        (folder / "more" / "errors").write_text("errors\n")
        (folder / "hosts").write_text("10.0.0.1 a.test\n")
        (folder / "resolv.conf").write_text("nameserver 10.0.0.2\n")
        self.stub_domains.write_text(STUBS)
        self.source = self.new_source()

    def new_source(self) -> Source:
        """What a process that starts has."""
        flags = Flags(
            basecorefile=str(self.corefile),
            conf=str(self.folder / "filled"),
            kubednscm=str(self.folder / "kube-dns"),
        )
        return Source(flags, environ={})

    def write_corefile(self, ttl: object) -> None:
        self.corefile.write_text(COREFILE.format(folder=self.folder, ttl=ttl))

    def keep(self) -> Config:
        """Loads what the files say, and takes it for what is in force."""
        config = self.source.load()
        LastGood(self.rundir).keep(self.source.take_recording())
        return config

    def start(self) -> Config:
        """Starts as another process does."""
        self.source = self.new_source()
        return load_first(self.source, str(self.rundir))


@pytest.fixture
def house(tmp_path: Path) -> FolderOfFiles:
    return FolderOfFiles(tmp_path)


def spoil_corefile(house: FolderOfFiles) -> None:
    house.corefile.write_text(".:53 {\n    cach 30\n}\n")


def lose_corefile(house: FolderOfFiles) -> None:
    house.corefile.unlink()


def lose_everything(house: FolderOfFiles) -> None:
    for path in ("Corefile", "more/errors", "hosts", "resolv.conf", "kube-dns/stubDomains"):
        (house.folder / path).unlink()


def spoil_import(house: FolderOfFiles) -> None:
    (house.folder / "more" / "errors").write_text("erors\n")


def spoil_kubedns(house: FolderOfFiles) -> None:
    house.stub_domains.write_text("{")


SPOILT = [spoil_corefile, lose_corefile, lose_everything, spoil_import, spoil_kubedns]


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_what_was_in_force_is_started_with_when_the_files_are_refused(
    house: FolderOfFiles, spoil: object
) -> None:
    config = house.keep()
    filled = (house.folder / "filled").read_text()
    (house.folder / "filled").unlink()
    assert callable(spoil)
    spoil(house)
    assert house.start() == config
    assert house.source.refused is not None
    assert house.source.recorded_at.startswith("20")
    assert house.source.recorded_at.endswith(" UTC")
    assert (house.folder / "filled").read_text() == filled


def test_files_that_are_right_are_started_with(house: FolderOfFiles) -> None:
    house.keep()
    house.write_corefile(29)
    config = house.start()
    assert config == house.new_source().load()
    assert house.source.refused is None


def test_repaired_file_is_seen_and_loaded(house: FolderOfFiles) -> None:
    house.keep()
    spoil_corefile(house)
    house.start()
    assert not house.source.has_changed()
    house.write_corefile(29)
    assert house.source.has_changed()
    assert house.source.load() == house.new_source().load()


def test_file_is_private_and_written_only_if_something_is_new(house: FolderOfFiles) -> None:
    house.keep()
    assert house.file.stat().st_mode & 0o7777 == 0o600
    before = house.file.stat().st_ino
    house.keep()
    assert house.file.stat().st_ino == before
    house.write_corefile(29)
    house.keep()
    assert house.file.stat().st_ino != before
    assert [path.name for path in house.rundir.iterdir()] == [FILE_NAME]


def test_refused_configuration_is_not_kept(house: FolderOfFiles) -> None:
    house.keep()
    kept = house.file.read_text()
    spoil_corefile(house)
    with pytest.raises(ConfigError):
        house.keep()
    house.start()
    LastGood(house.rundir).keep(house.source.take_recording())
    assert house.file.read_text() == kept


def test_first_start_without_one_fails_with_the_faults_of_the_files(house: FolderOfFiles) -> None:
    spoil_corefile(house)
    with pytest.raises(ConfigError) as caught:
        house.start()
    assert len(caught.value.faults) == 1
    assert "unknown directive 'cach'" in str(caught.value)


def test_first_start_with_a_broken_config_map_of_kube_dns_leaves_that_out(
    house: FolderOfFiles,
) -> None:
    spoil_kubedns(house)
    config = house.start()
    assert "the ConfigMap is left out" in config.warnings[0]
    LastGood(house.rundir).keep(house.source.take_recording())
    assert not house.file.exists()


def test_text_that_stood_in_for_a_file_that_is_gone_is_kept_too(house: FolderOfFiles) -> None:
    house.source.load()
    (house.folder / "resolv.conf").unlink()
    config = house.keep()
    assert config.kept_files == (str(house.folder / "resolv.conf"),)
    spoil_corefile(house)
    assert [b.forwards for b in house.start().blocks] == [b.forwards for b in config.blocks]


def test_without_a_folder_nothing_is_kept_or_used(house: FolderOfFiles) -> None:
    house.keep()
    house.source.load()
    LastGood(None).keep(house.source.take_recording())
    assert house.source.take_recording() is None
    spoil_corefile(house)
    with pytest.raises(ConfigError):
        load_first(house.new_source(), "")


def cut(house: FolderOfFiles) -> None:
    house.file.write_bytes(house.file.read_bytes()[:-9])


def scribble(house: FolderOfFiles) -> None:
    house.file.write_bytes(os.urandom(5000))


def inflate(house: FolderOfFiles) -> None:
    with house.file.open("wb") as file:
        file.truncate(last_good.MOST_OCTETS + 1)


def link(house: FolderOfFiles) -> None:
    house.file.rename(house.folder / "elsewhere")
    house.file.symlink_to(house.folder / "elsewhere")


def block(house: FolderOfFiles) -> None:
    house.file.unlink()
    os.mkfifo(house.file)


def spoil_kept(house: FolderOfFiles) -> None:
    house.file.write_text(house.file.read_text().replace("cache 30", "cach 30"))


HOSTILE = [cut, scribble, inflate, link, block, spoil_kept]


@pytest.mark.parametrize("harm", HOSTILE, ids=lambda harm: harm.__name__)
def test_file_that_is_not_ours_or_broken_is_told_of_and_ignored(
    house: FolderOfFiles, harm: object
) -> None:
    house.keep()
    assert callable(harm)
    harm(house)
    spoil_kubedns(house)
    config = house.start()
    assert f"{house.file}: the last configuration that worked is of no use" in config.warnings[0]
    spoil_corefile(house)
    with pytest.raises(ConfigError) as caught:
        house.start()
    assert caught.value.faults[-1].file == str(house.file)


def test_file_of_another_user_is_ignored(
    house: FolderOfFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.keep()
    spoil_corefile(house)
    monkeypatch.setattr(os, "geteuid", lambda: house.file.stat().st_uid + 1)
    with pytest.raises(ConfigError, match="it is no file of ours"):
        house.start()


def test_folder_that_cannot_be_written_is_told_of_once(
    house: FolderOfFiles, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "nodecache")

    keeping = LastGood(house.rundir / "none")
    for _ in range(2):
        house.source.load()
        keeping.keep(house.source.take_recording())
    assert len(caplog.records) == 1
    assert "a restart needs files that are right" in caplog.text


def test_what_is_too_long_is_not_kept(
    house: FolderOfFiles, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(last_good, "MOST_OCTETS", 100)
    house.keep()
    assert not house.file.exists()
    assert "it is longer than 0 MiB" in caplog.text
