from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import pytest

from nodecache.webhook import certificate_files
from nodecache.webhook.certificate_files import CertificateFiles, FileWatch, watch_files
from nodecache.webhook.identity import ServerIdentity
from tests.loops import Run, until
from tests.webhook.pairs import make_pair

FIRST, SECOND = make_pair(1), make_pair(2)


class Volume:
    """A Secret's volume, as kubelet keeps it: what it shows changes by one symbolic link."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._number = 0
        for name in ("tls.crt", "tls.key"):
            (folder / name).symlink_to(Path("..data", name))

    @property
    def files(self) -> CertificateFiles:
        return CertificateFiles(str(self.folder / "tls.crt"), str(self.folder / "tls.key"))

    def show(self, pair: tuple[bytes, bytes]) -> None:
        self._number += 1
        version = self.folder / f"..{self._number}"
        version.mkdir()
        (version / "tls.crt").write_bytes(pair[0])
        (version / "tls.key").write_bytes(pair[1])
        link = self.folder / "..data_tmp"
        link.symlink_to(version.name)
        link.rename(self.folder / "..data")


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return Volume(tmp_path)


def test_a_pair_is_loaded_when_it_comes_and_when_it_changes(volume: Volume) -> None:
    loaded: list[tuple[bytes, bytes]] = []
    watch = FileWatch(volume.files, lambda *pair: loaded.append(pair))
    looks = [watch.look()]
    for pair in (FIRST, SECOND):
        volume.show(pair)
        looks += [watch.look(), watch.look()]
    assert looks == [False, True, False, True, False]
    assert loaded == [FIRST, SECOND]


def test_a_fault_is_told_once_and_again_if_it_comes_back(
    volume: Volume, caplog: pytest.LogCaptureFixture
) -> None:
    identity = ServerIdentity()
    watch = FileWatch(volume.files, identity.load)
    for _ in range(5):
        watch.look()
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "no such file or directory" in caplog.text
    volume.show((FIRST[0], SECOND[1]))
    for _ in range(5):
        watch.look()
    assert "belongs to another certificate" in caplog.messages[1]
    volume.show(FIRST)
    assert watch.look()
    volume.show((FIRST[0], SECOND[1]))
    for _ in range(5):
        watch.look()
    assert len(caplog.messages) == 3


def test_a_pair_in_the_middle_of_a_change_is_no_fault(
    volume: Volume, caplog: pytest.LogCaptureFixture
) -> None:
    identity = ServerIdentity()
    watch = FileWatch(volume.files, identity.load)
    volume.show(FIRST)
    watch.look()
    volume.show((SECOND[0], FIRST[1]))
    assert not watch.look()
    volume.show(SECOND)
    assert watch.look()
    assert caplog.messages == []


def test_what_is_of_no_use_leaves_the_former_pair_in_force(volume: Volume) -> None:
    identity = ServerIdentity()
    watch = FileWatch(volume.files, identity.load)
    volume.show(FIRST)
    watch.look()
    end = identity.not_after
    (volume.folder / "..data").unlink()
    assert not watch.look()
    assert identity.not_after == end is not None


def test_a_fifo_in_place_of_a_file_keeps_nobody_waiting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkfifo(tmp_path / "tls.crt")
    (tmp_path / "tls.key").write_bytes(FIRST[1])
    files = CertificateFiles(str(tmp_path / "tls.crt"), str(tmp_path / "tls.key"))
    watch = FileWatch(files, ServerIdentity().load)
    watch.look()
    watch.look()
    assert "it is a fifo" in caplog.text.lower()


def test_the_watch_goes_on_until_it_is_ended(
    volume: Volume, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(certificate_files, "LOOK_S", 0.01)

    async def main() -> None:
        identity = ServerIdentity()
        watching = asyncio.create_task(watch_files(volume.files, identity))
        volume.show(make_pair(ends_s=1000))
        await until(lambda: identity.not_after)
        first = identity.not_after
        volume.show(make_pair(ends_s=5000))
        await until(lambda: identity.not_after != first)
        watching.cancel()

    with caplog.at_level(logging.INFO):
        run(main())
    assert sum("which ends" in text for text in caplog.messages) == 2
