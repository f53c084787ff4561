"""The variables of the template, and the way back from the filled text to the template."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache.config.flags import Flags
from nodecache.config.names import parse_name
from nodecache.config.variables import Filled, fill_variables

FLAGS = Flags(localip=("169.254.20.10", "10.96.0.10"), upstreamsvc="kube-dns-upstream")
KNOWN = {"KUBE_DNS_UPSTREAM_SERVICE_HOST": "10.103.7.7"}


def fill(
    text: str,
    flags: Flags = FLAGS,
    environ: dict[str, str] = KNOWN,
    upstreams: tuple[str, ...] = (),
) -> Filled:
    return fill_variables(text, "Corefile", flags, environ, upstreams)


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("bind __PILLAR__LOCAL__DNS__ __PILLAR__DNS__SERVER__", "bind 169.254.20.10 10.96.0.10 "),
        ("health __PILLAR__LOCAL__DNS__:8080", "health 169.254.20.10:8080"),
        ("__PILLAR__DNS__DOMAIN__:53 {", "cluster.local:53 {"),
        ("forward . __PILLAR__CLUSTER__DNS__ {", "forward . 10.103.7.7 {"),
        ("forward . __PILLAR__UPSTREAM__SERVERS__", "forward . /etc/resolv.conf"),
        ("prometheus __PROMETHEUS__ENDPOINT__", "prometheus :9253"),
        (
            "# __PILLAR__CLUSTER__DNS__ __PILLAR__UPSTREAM__SERVERS__",
            "# 10.103.7.7 /etc/resolv.conf",
        ),
        ("errors # __PILLAR__X__", "errors # __PILLAR__X__"),
        ('log "\n# __PILLAR__DNS__DOMAIN__', 'log "\n# cluster.local'),
        ("__PILLAR__LOCAL__DNS", "__PILLAR__LOCAL__DNS"),
        ("__PILLAR__DNS__SERVER____PILLAR__DNS__DOMAIN__", "cluster.local"),
    ],
)
def test_every_variable_is_filled_also_in_comments(text: str, filled: str) -> None:
    assert fill(text) == replace(Filled(filled), shifts=fill(text).shifts)


def test_port_behind_an_address_brackets_ipv6() -> None:
    flags = replace(FLAGS, localip=("fd00::10", "10.0.0.1"))
    environ = {"KUBE_DNS_UPSTREAM_SERVICE_HOST": "FD00::A"}
    text = "health __PILLAR__LOCAL__DNS__:8080\nforward . dns://__PILLAR__CLUSTER__DNS__:5353"
    filled = "health [fd00::10]:8080\nforward . dns://[fd00::a]:5353"
    assert fill(text, flags, environ).text == filled
    assert fill("forward . __PILLAR__CLUSTER__DNS__", flags, environ).text == "forward . fd00::a"


def test_root_as_cluster_domain_is_a_dot() -> None:
    flags = replace(FLAGS, cluster_domain=parse_name("."))
    assert fill("__PILLAR__DNS__DOMAIN__ {", flags).text == ". {"


def test_unknown_variable_is_a_fault_with_a_hint() -> None:
    faults = [str(fault) for fault in fill("\n bind __PILLAR__LOCAL_DNS__ x").faults]
    assert faults == [
        (
            "Corefile:2:7: there is no variable __PILLAR__LOCAL_DNS__;"
            " did you mean '__PILLAR__LOCAL__DNS__'?"
        )
    ]


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, "is not set"),
        ({"KUBE_DNS_UPSTREAM_SERVICE_HOST": "None"}, "is 'None', no IP address"),
        ({"KUBE_DNS_UPSTREAM_SERVICE_HOST": "a }\n{"}, "is 'a }\\n{', no IP address"),
    ],
)
def test_service_without_address_is_one_warning_and_a_word_that_says_so(
    environ: dict[str, str], found: str
) -> None:
    filled = fill("forward . __PILLAR__CLUSTER__DNS__\n" * 3, FLAGS, environ)
    assert filled.text == "forward . missing-service://kube-dns-upstream\n" * 3
    assert filled.missing_service == "kube-dns-upstream"
    assert filled.faults == ()
    (warning,) = filled.warnings
    assert warning.startswith(
        "Corefile:1:11: the Service 'kube-dns-upstream' has no address:"
        f" KUBE_DNS_UPSTREAM_SERVICE_HOST {found}; until it is found"
    )


def test_service_that_only_a_comment_names_is_not_missed() -> None:
    filled = fill("errors # __PILLAR__CLUSTER__DNS__", FLAGS, {})
    assert filled.text == "errors # missing-service://kube-dns-upstream"
    assert (filled.missing_service, filled.warnings) == ("", ())


def test_word_for_a_missing_service_is_filled_like_its_variable() -> None:
    text = "forward . missing-service://kube-dns-upstream:54"
    assert fill(text).text == "forward . 10.103.7.7:54"
    assert fill(text, FLAGS, {}).missing_service == "kube-dns-upstream"


def test_variable_without_a_service_name_is_a_fault() -> None:
    (fault,) = fill("forward . __PILLAR__CLUSTER__DNS__", replace(FLAGS, upstreamsvc="")).faults
    assert str(fault) == (
        "Corefile:1:11: __PILLAR__CLUSTER__DNS__ stands for no Service: give -upstreamsvc SERVICE,"
        " or an address"
    )


def test_service_at_one_of_our_own_addresses_is_a_warning() -> None:
    filled = fill(
        "forward . __PILLAR__CLUSTER__DNS__",
        FLAGS,
        {"KUBE_DNS_UPSTREAM_SERVICE_HOST": "10.96.0.10"},
    )
    (warning,) = filled.warnings
    assert "is at 10.96.0.10, which is one of -localip" in warning
    assert filled.text == "forward . 10.96.0.10"


NOTE = "# left out, since upstreamNameservers are asked over UDP: force_tcp"


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        (
            "forward . __PILLAR__UPSTREAM__SERVERS__ {\n   force_tcp\n}",
            f"forward . 10.2.0.1 10.2.0.2:54 {{\n   {NOTE}\n}}",
        ),
        (
            "forward . __PILLAR__UPSTREAM__SERVERS__ { force_tcp\n\texpire 5s\n}",
            f"forward . 10.2.0.1 10.2.0.2:54 {{ {NOTE}\n\texpire 5s\n}}",
        ),
        (
            "forward . __PILLAR__UPSTREAM__SERVERS__ {\nx {\nforce_tcp\n}\nforce_tcp # y\n}",
            f"forward . 10.2.0.1 10.2.0.2:54 {{\nx {{\nforce_tcp\n}}\n{NOTE} # y\n}}",
        ),
        (
            "forward . __PILLAR__CLUSTER__DNS__ {\nforce_tcp\n}",
            "forward . 10.103.7.7 {\nforce_tcp\n}",
        ),
        (
            "forward . __PILLAR__UPSTREAM__SERVERS__\nforce_tcp",
            "forward . 10.2.0.1 10.2.0.2:54\nforce_tcp",
        ),
    ],
)
def test_force_tcp_is_left_out_where_upstream_nameservers_come_in(text: str, filled: str) -> None:
    assert fill(text, upstreams=("10.2.0.1", "10.2.0.2:54")).text == filled


def test_no_more_than_a_hundred_faults_are_kept() -> None:
    assert len(fill("forward . __PILLAR__NOTHING__\n" * 500).faults) == 100


def test_template_of_variables_alone_cannot_fill_the_memory() -> None:
    flags = replace(FLAGS, localip=tuple(f"10.0.0.{n}" for n in range(100)))
    filled = fill("__PILLAR__LOCAL__DNS__ " * 40_000, flags)
    assert len(filled.text) < 12_000_000
    assert [fault.text for fault in filled.faults] == ["more than 10,000 variables; write values"]
    too_long = "__PILLAR__LOCAL__DNS__" * 60_000
    assert fill(too_long).text == too_long


PIECES = st.sampled_from(
    [
        "__PILLAR__LOCAL__DNS__",
        "__PILLAR__DNS__SERVER__",
        "__PILLAR__DNS__DOMAIN__",
        "x",
        " y",
        "\n",
    ]
)


@given(st.lists(PIECES, max_size=12))
def test_every_column_leads_back_to_where_its_text_came_from(pieces: list[str]) -> None:
    source = "".join(pieces)
    filled = fill(source)
    lines = source.split("\n")
    for number, line in enumerate(filled.text.split("\n"), 1):
        for column, character in enumerate(line, 1):
            back = filled.source_column(number, column)
            origin = lines[number - 1][back - 1 :]
            assert origin[0] == character or origin.startswith("__PILLAR__")
        assert filled.source_column(number, len(line) + 1) == len(lines[number - 1]) + 1


@given(st.text(alphabet=st.sampled_from('_PILARDNSCUTE{}"#\n \\:f')), st.booleans())
def test_no_text_makes_the_filling_raise(text: str, has_upstreams: bool) -> None:
    filled = fill(text, upstreams=("10.2.0.1",) if has_upstreams else ())
    assert filled.text.count("\n") == text.count("\n")
