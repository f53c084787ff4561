"""One configuration after the other, while the files that they are made of come and go."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nodecache.config.flags import Flags
from nodecache.config.model import Config
from nodecache.directives.hosts.model import HOSTS
from nodecache.errors import ConfigError
from nodecache.loading import Source, write_whole

COREFILE = """.:53 {{
    bind 192.0.2.53
    cache 30
    forward . {folder}/resolv.conf
}}
"""
NAMESERVERS = "nameserver 10.0.0.1\nnameserver 192.0.2.53\nnameserver 10.0.0.2\n"


class Files:
    """A Corefile and what it reads, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.resolv_conf = folder / "resolv.conf"
        self.corefile = folder / "Corefile"
        self.corefile.write_text(COREFILE.format(folder=folder))
        self.source = Source(
            Flags(localip=("192.0.2.53",), basecorefile=str(self.corefile)), environ={}
        )

    def load(self) -> Config:
        return self.source.load()

    def upstreams(self, config: Config) -> list[str]:
        (block,) = config.blocks
        return [upstream.address.host for policy in block.forwards for upstream in policy.upstreams]


@pytest.fixture
def house(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def serving(house: Files) -> Files:
    house.resolv_conf.write_text(NAMESERVERS)
    assert house.upstreams(house.load()) == ["10.0.0.1", "10.0.0.2"]
    return house


def gone(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    path.write_text("")


def nameless(path: Path) -> None:
    path.write_text("# Generated\nsearch example.com\n")


def half_written(path: Path) -> None:
    path.write_text("nameserver 10.0.")


def only_ourselves(path: Path) -> None:
    path.write_text("nameserver 192.0.2.53\n")


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("../run/systemd/nowhere")


def in_a_circle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def too_long(path: Path) -> None:
    path.write_text("#" * (5 << 20))


TROUBLES = [
    gone, emptied, nameless, half_written, only_ourselves, dangling, in_a_circle, fifo, device,
    folder, too_long,
]  # fmt: skip


@pytest.fixture(params=TROUBLES, ids=lambda make: make.__name__)
def trouble(request: pytest.FixtureRequest) -> Callable[[Path], None]:
    made: Callable[[Path], None] = request.param
    return made


def test_resolv_conf_of_no_use_keeps_the_nameservers_of_before(
    serving: Files, trouble: Callable[[Path], None]
) -> None:
    trouble(serving.resolv_conf)
    assert serving.source.has_changed()
    config = serving.load()
    assert serving.upstreams(config) == ["10.0.0.1", "10.0.0.2"]
    assert config.kept_files == (str(serving.resolv_conf),)
    warnings = [text for text in config.warnings if "those that it named before go on" in text]
    assert len(warnings) == 1
    assert not serving.source.has_changed()


def test_resolv_conf_of_no_use_at_start_leaves_the_forward_without_upstreams(
    house: Files, trouble: Callable[[Path], None]
) -> None:
    house.resolv_conf.write_text("")
    trouble(house.resolv_conf)
    config = house.load()
    assert house.upstreams(config) == []
    assert config.kept_files == ()
    assert any("REFUSED" in text for text in config.warnings)


def test_nameservers_are_kept_through_any_number_of_reloads(serving: Files) -> None:
    for make in (emptied, only_ourselves, fifo):
        make(serving.resolv_conf)
        assert serving.upstreams(serving.load()) == ["10.0.0.1", "10.0.0.2"]
    serving.resolv_conf.unlink()
    serving.resolv_conf.write_text("nameserver 10.0.0.3\n")
    assert serving.source.has_changed()
    config = serving.load()
    assert serving.upstreams(config) == ["10.0.0.3"]
    assert config.kept_files == ()


def test_corefile_may_change_while_the_resolv_conf_is_empty(serving: Files) -> None:
    emptied(serving.resolv_conf)
    serving.load()
    text = serving.corefile.read_text()
    serving.corefile.write_text("erors\n")
    with pytest.raises(ConfigError):
        serving.load()
    serving.corefile.write_text(text.replace("cache 30", "cache 60"))
    config = serving.load()
    assert config.blocks[0].cache is not None
    assert config.blocks[0].cache.success.max_ttl_s == 60
    assert serving.upstreams(config) == ["10.0.0.1", "10.0.0.2"]


def test_nameserver_of_before_that_is_our_own_address_by_now_is_not_asked(serving: Files) -> None:
    emptied(serving.resolv_conf)
    text = serving.corefile.read_text()
    serving.corefile.write_text(text.replace("bind ", "bind 10.0.0.1 10.0.0.2 "))
    config = serving.load()
    assert serving.upstreams(config) == []
    assert config.kept_files == ()


def test_relative_resolv_conf_that_is_gone_is_no_host_name(
    house: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(house.folder)
    house.corefile.write_text(house.corefile.read_text().replace(f"{house.folder}/", ""))
    house.resolv_conf.write_text(NAMESERVERS)
    house.load()
    gone(house.resolv_conf)
    config = house.load()
    assert house.upstreams(config) == ["10.0.0.1", "10.0.0.2"]
    assert config.kept_files == ("resolv.conf",)


def test_rights_that_come_back_are_noticed(serving: Files) -> None:
    serving.resolv_conf.chmod(0)
    assert serving.source.has_changed()
    serving.load()
    serving.resolv_conf.chmod(0o644)
    assert serving.source.has_changed()


def test_hosts_file_that_is_gone_goes_on_with_what_it_said(serving: Files) -> None:
    hosts = serving.folder / "hosts"
    hosts.write_text("192.0.2.1 a.test\n")
    text = serving.corefile.read_text()
    serving.corefile.write_text(text.replace("cache 30", f"hosts {hosts}"))
    before = serving.load().blocks[0].of(HOSTS)
    assert before is not None
    assert before.entries
    gone(hosts)
    config = serving.load()
    assert config.blocks[0].of(HOSTS) == before
    assert config.kept_files == (str(hosts),)
    emptied(hosts)
    after = serving.load()
    table = after.blocks[0].of(HOSTS)
    assert table is not None
    assert table.entries == 0
    assert after.kept_files == ()


def test_fifo_for_a_hosts_file_or_a_corefile_refuses_the_reload_at_once(serving: Files) -> None:
    hosts = serving.folder / "hosts"
    text = serving.corefile.read_text()
    serving.corefile.write_text(text.replace("cache 30", f"hosts {hosts}"))
    os.mkfifo(hosts)
    with pytest.raises(ConfigError, match=r"hosts.*it is a FIFO, not a file"):
        serving.load()
    fifo(serving.corefile)
    with pytest.raises(ConfigError, match="cannot read the Corefile: it is a FIFO, not a file"):
        serving.load()
    serving.corefile.unlink()
    serving.corefile.write_text(text)
    assert serving.source.has_changed()
    assert serving.upstreams(serving.load()) == ["10.0.0.1", "10.0.0.2"]


def test_file_of_the_config_map_that_is_a_fifo_refuses_the_reload_at_once(serving: Files) -> None:
    folder = serving.folder / "kube-dns"
    folder.mkdir()
    flags = Flags(basecorefile=str(serving.corefile), kubednscm=str(folder))
    source = Source(flags, environ={})
    source.load()
    os.mkfifo(folder / "stubDomains")
    with pytest.raises(ConfigError, match=r"stubDomains.*it is a FIFO, not a file"):
        source.load()


def test_written_corefile_never_goes_into_a_fifo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".Corefile.new")
    write_whole(str(tmp_path / "Corefile"), "text")
    assert (tmp_path / "Corefile").read_text() == "text"
