"""The kube-dns ConfigMap: what it may hold, and how each slip is told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache.config.flags import Flags
from nodecache.config.kubedns import (
    KubeDns,
    corefile_text,
    is_in_kubedns,
    kubedns_files,
    read_kubedns,
)
from nodecache.errors import Fault
from tests.config.conftest import FakeReader

FLAGS = Flags(localip=("169.254.20.10", "fd00::10"))
STUB = "/etc/kube-dns/stubDomains"
UPSTREAM = "/etc/kube-dns/upstreamNameservers"
STUB_USAGE = 'write {"acme.local": ["10.0.0.1", "10.0.0.2:5353"]}'
UPSTREAM_USAGE = 'write ["10.0.0.1", "10.0.0.2:5353"]'


def read(files: Mapping[str, str | Exception], flags: Flags = FLAGS) -> KubeDns:
    return read_kubedns(flags, FakeReader(files))


@pytest.mark.parametrize("flags", [FLAGS, replace(FLAGS, kubednscm="/etc/kube-dns")])
@pytest.mark.parametrize("text", ["", " \n", "null", "{}"])
def test_nothing_is_asked_for(text: str, flags: Flags) -> None:
    assert read({STUB: text}, flags) == KubeDns()
    assert read({}) == KubeDns()
    assert read({UPSTREAM: text.replace("{}", "[]")}) == KubeDns()


def test_stub_domains_as_corefile_text() -> None:
    acme = '["10.1.0.1", "10.1.0.1:53", "[FD00::5]:5353", "fe80::1%eth0"]'
    text = f'{{"Acme.local": {acme}, "b": ["::1"]}}'
    assert corefile_text(read({STUB: text}).blocks) == (
        "\n# From /etc/kube-dns/stubDomains:\n"
        "acme.local:53 {\n"
        "    errors\n"
        "    cache 30\n"
        "    bind 169.254.20.10 fd00::10\n"
        "    forward . 10.1.0.1 10.1.0.1:53 [fd00::5]:5353 fe80::1%eth0\n"
        "}\n"
        "b:53 {\n"
        "    errors\n"
        "    cache 30\n"
        "    bind 169.254.20.10 fd00::10\n"
        "    forward . ::1\n"
        "}\n"
    )


def test_words_of_a_block_stand_where_the_configmap_has_them() -> None:
    (block,) = read({STUB: '{\n  "acme.local":\n   ["10.1.0.1"]}'}).blocks
    (key,) = block.keys
    assert (key.text, key.file, key.line, key.column) == ("acme.local:53", STUB, 2, 3)
    server = block.directives[-1].arguments[-1]
    assert (server.text, server.file, server.line, server.column) == ("10.1.0.1", STUB, 3, 5)


def test_upstream_nameservers() -> None:
    found = read({UPSTREAM: '["10.0.0.1", "fd00::1", "[fd00::2]:54"]'})
    assert found.upstreams == ("10.0.0.1", "fd00::1", "[fd00::2]:54")
    assert found.faults == ()


def test_without_own_addresses_the_block_binds_none() -> None:
    (block,) = read({STUB: '{"a.b": ["10.0.0.1"]}'}, replace(FLAGS, localip=())).blocks
    assert [row.name.text for row in block.directives] == ["errors", "cache", "forward"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[]", "1:1: the stub domains are an object, not a list"),
        ('"x"', "1:1: the stub domains are an object, not a string"),
        ("7", "1:1: the stub domains are an object, not a bare word or number"),
        ('{"a.b" ["10.0.0.1"]}', "1:8: this is no JSON from here on"),
        ('{"a.b": ["10.0.0.1",]}', "1:21: this is no JSON from here on"),
        ("{", "1:2: this is no JSON from here on"),
        ("[" * 9 + "]" * 9, "1:9: nests more than 8 deep"),
        (
            "{" + ", ".join(f'"a{n}": ["10.0.0.1"]' for n in range(1001)) + "}",
            "1:1: more than 1000 stub domains are too many",
        ),
    ],
)
def test_fault_of_stub_domains_says_where_and_what_to_write(text: str, fault: str) -> None:
    found = read({STUB: text}).faults
    assert [str(each) for each in found] == [f"{STUB}:{fault}; {STUB_USAGE}"]
    assert all(map(is_in_kubedns, found))


GOOD = '"good.example": ["10.0.0.9"]'


@pytest.mark.parametrize(
    ("text", "trouble"),
    [
        ('{"a.b": "10.0.0.1", %s}', "1:9: addresses are a list, not a string"),
        ('{"a.b": {"c": []}, %s}', "1:9: addresses are a list, not an object"),
        ('{"a.b": [["10.0.0.1"]], %s}', "1:10: this is a list and should be a string"),
        ('{"a.b": [10], %s}', "1:10: this is a bare word or number and should be a string"),
        ('{"a.b":\n ["x"], %s}', "2:3: 'x' is neither IP nor IP:PORT"),
        (
            '{"a.b": ["10.0.0.1:0"], %s}',
            "1:10: 0 is out of range: give 1 to 65535 as a port (16 bits)",
        ),
        ('{"a.b": ["10.0.0.1:x"], %s}', "1:10: 'x' is no whole number"),
        (
            '{"a.b": ["10.0.0.1 10.0.0.2"], %s}',
            "1:10: '10.0.0.1 10.0.0.2' is neither IP nor IP:PORT",
        ),
        ('{"a.b": ["tls://10.0.0.1"], %s}', "1:10: 'tls://10.0.0.1' is neither IP nor IP:PORT"),
        ('{"a.b": ["fe80::1%%}"], %s}', "1:10: 'fe80::1%}' is neither IP nor IP:PORT"),
        ('{"a.b": ["10.0.0.1\\n}"], %s}', "1:10: '10.0.0.1\\n}' is neither IP nor IP:PORT"),
        ('{"a.b": ["169.254.20.10"], %s}', "1:10: '169.254.20.10' is this cache itself"),
        (
            '{"a.b": ["[::ffff:169.254.20.10]:53"], %s}',
            "1:10: '[::ffff:169.254.20.10]:53' is this cache itself",
        ),
        ('{"": ["10.0.0.1"], %s}', "1:2: '' is no domain name"),
        ('{"a b": ["10.0.0.1"], %s}', "1:2: 'a b' is no domain name"),
        ('{"a{": ["10.0.0.1"], %s}', "1:2: 'a{' is no domain name"),
        ('{"a\\n. {": ["10.0.0.1"], %s}', "1:2: 'a\\n. {' is no domain name"),
        ('{"caf\udce9": ["10.0.0.1"], %s}', "1:2: 'caf?' is no domain name"),
        ('{"10.0.0.0/8": ["10.0.0.1"], %s}', "1:2: '10.0.0.0/8' is no domain name"),
        (
            '{"a..b": ["10.0.0.1"], %s}',
            "1:2: a domain name has no empty label; remove the surplus dot",
        ),
        (
            f'{{"{"a" * 64}": ["10.0.0.1"], %s}}',
            "1:2: a label of a domain name has at most 63 octets",
        ),
    ],
)
def test_slip_in_a_stub_domain_leaves_out_that_domain_alone(text: str, trouble: str) -> None:
    found = read({STUB: text % GOOD})
    assert [block.place.text for block in found.blocks] == ["good.example."]
    assert (found.faults, found.has_left_out) == ((), True)
    assert found.warnings[0] == f"{STUB}:{trouble}: left out; {STUB_USAGE}"


def test_stub_domain_without_addresses_is_left_out() -> None:
    found = read({STUB: f'{{"a.b": [], {GOOD}}}'})
    assert [block.place.text for block in found.blocks] == ["good.example."]
    assert found.warnings == (
        f"{STUB}:1:2: 'a.b' has no address that can be used: left out; {STUB_USAGE}",
    )


def test_slip_in_an_address_leaves_out_that_address_alone() -> None:
    found = read({STUB: '{"a.b": ["10.0.0.1", "x"]}', UPSTREAM: '["10.0.0.2", "169.254.20.10"]'})
    (block,) = found.blocks
    assert [word.text for word in block.directives[-1].arguments] == [".", "10.0.0.1"]
    assert found.upstreams == ("10.0.0.2",)
    assert [warning.split(";")[0] for warning in found.warnings] == [
        f"{STUB}:1:22: 'x' is neither IP nor IP:PORT: left out",
        f"{UPSTREAM}:1:14: '169.254.20.10' is this cache itself: left out",
    ]


def test_addresses_beyond_what_a_forward_takes_are_left_out() -> None:
    addresses = ", ".join(f'"10.0.0.{n}"' for n in range(16))
    found = read({STUB: f'{{"a.b": [{addresses}]}}'})
    assert len(found.blocks[0].directives[-1].arguments) == 1 + 15
    assert found.warnings[0].startswith(f"{STUB}:1:9: what is behind the first 15 of 16 addresses")


def test_of_two_equal_stub_domains_the_last_counts_as_in_go() -> None:
    found = read({STUB: '{"a.b": ["10.0.0.1"], "A.b.": ["::1"]}'})
    (block,) = found.blocks
    assert block.directives[-1].arguments[1].text == "::1"
    text = "'A.b.' already stands in line 1: the last one counts"
    assert found.warnings == (f"{STUB}:1:23: {text}",)


def test_whole_configmap_leaves_out_nothing() -> None:
    assert not read({STUB: f"{{{GOOD}}}", UPSTREAM: '["10.0.0.1"]'}).has_left_out


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{}", "1:1: the addresses of upstreamNameservers are a list, not an object"),
        (
            '["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]',
            "1:1: upstreamNameservers has 4 addresses, and 3 is the most",
        ),
        ('["/etc/resolv.conf"]', "1:1: upstreamNameservers has no address that can be used"),
        ('["fd00::10", 7]', "1:1: upstreamNameservers has no address that can be used"),
        ("10.0.0.1", "1:5: this is no JSON from here on"),
    ],
)
def test_fault_of_upstream_nameservers_says_where_and_what_to_write(text: str, fault: str) -> None:
    found = read({UPSTREAM: text})
    assert [str(each) for each in found.faults] == [f"{UPSTREAM}:{fault}; {UPSTREAM_USAGE}"]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (PermissionError(13, "Permission denied"), "cannot read this: Permission denied"),
        (" " * (1024 * 1024 + 1), "longer than 1 MiB; remove what is not needed"),
    ],
)
def test_key_that_cannot_be_read_is_a_fault(content: str | Exception, fault: str) -> None:
    assert [str(each) for each in read({STUB: content}).faults] == [f"{STUB}: {fault}"]


def test_our_address_on_another_port_is_another_server() -> None:
    assert read({UPSTREAM: '["169.254.20.10:54"]'}).upstreams == ("169.254.20.10:54",)
    flags = replace(FLAGS, dns_port=54)
    assert len(read({UPSTREAM: '["169.254.20.10:54"]'}, flags).faults) == 1


def test_all_faults_come_together() -> None:
    found = read({STUB: "{", UPSTREAM: "["})
    places = [(fault.file, fault.line, fault.column) for fault in found.faults]
    assert places == [(STUB, 1, 2), (UPSTREAM, 1, 2)]


def test_odd_keys_are_warned_of_but_not_kubernetes_links() -> None:
    files = dict.fromkeys(
        ("..data", "..2026_01_01", ".x", "federations", "stubdomains", "zzz"), "{"
    )
    found = read({f"/etc/kube-dns/{name}": text for name, text in files.items()})
    assert found.faults == ()
    assert found.warnings == (
        (
            "/etc/kube-dns: 'stubdomains' is no key of the kube-dns ConfigMap;"
            " did you mean 'stubDomains'?"
        ),
        (
            "/etc/kube-dns: 'zzz' is no key of the kube-dns ConfigMap;"
            " there are stubDomains and upstreamNameservers"
        ),
    )


def test_folder_that_was_named_and_is_missing_is_a_warning() -> None:
    found = read({}, replace(FLAGS, kubednscm="/else[where]/"))
    assert found.warnings == ("-kubednscm: there is no folder '/else[where]' (yet)",)
    assert kubedns_files(replace(FLAGS, kubednscm="/x/")) == (
        "/x/stubDomains",
        "/x/upstreamNameservers",
    )


def test_folder_with_wildcards_in_its_name_is_looked_into() -> None:
    found = read({"/a[b]*/zzz": ""}, replace(FLAGS, kubednscm="/a[b]*"))
    assert len(found.warnings) == 1


def test_faults_elsewhere_are_not_the_configmaps() -> None:
    assert not is_in_kubedns(Fault("Corefile", 1, 1, "x"))
    assert not is_in_kubedns(Fault("command line", 0, 0, "x"))


@given(st.text(alphabet=st.sampled_from('{}[]:,"abc.10%/ \n\\-_')))
def test_no_text_raises_and_none_gets_unchecked_into_the_corefile(text: str) -> None:
    assert all(map(is_in_kubedns, read({STUB: text, UPSTREAM: text}).faults))
    found = read({STUB: json.dumps({text: ["10.0.0.1"], "x.y": [text]})})
    for block in found.blocks:
        for word in (*block.keys, *block.directives[-1].arguments):
            assert not set(word.text) & set('{}" \n\\#')
