"""Broken Corefiles, each with every fault as users see it: place, what is wrong, what to write."""

from __future__ import annotations

from collections.abc import Callable

import pytest

BROKEN: list[tuple[str, list[str]]] = [
    (
        "",
        [
            "Corefile: no server block: begin with a line such as '.:53 {'",
        ],
    ),
    (
        "# only a comment\n",
        [
            "Corefile: no server block: begin with a line such as '.:53 {'",
        ],
    ),
    (
        ".:53 {\n} errors\n",
        [
            "Corefile:2:3: 'errors' must begin a new line: nothing may follow '}' on its line",
            "Corefile:2:3: 'errors' stands outside of a block: begin with '.:53 {'",
        ],
    ),
    (
        ".:53 { errors }\n",
        [
            "Corefile:1:15: '}' must stand on a line of its own",
        ],
    ),
    (
        ".:53 {\n    errors }\n",
        [
            "Corefile:2:12: '}' must stand on a line of its own",
        ],
    ),
    (
        ".:53 {\n} .:54 {\n}\n",
        [
            "Corefile:2:3: '.:54' must begin a new line: nothing may follow '}' on its line",
        ],
    ),
    (
        ".:53{\n    errors\n}\n",
        [
            "Corefile:1:1: put a blank before the '{' of '.:53{'",
        ],
    ),
    (
        ".:53 {\n    errors\n",
        [
            "Corefile:1:6: this '{' is never closed: add a line with '}'",
        ],
    ),
    (
        ".:53\n    errors\n}\n",
        [
            "Corefile:3:1: this '}' closes nothing: does line 1 lack its '{'?",
        ],
    ),
    (
        ".:53 {\n    errors\n}\n}\n",
        [
            "Corefile:4:1: this '}' closes nothing: remove it",
        ],
    ),
    (
        ".:53 {}\n",
        [
            "Corefile:1:6: put a blank between '{' and '}'",
        ],
    ),
    (
        '.:53 {\n    errors "stdout\n}\n',
        [
            "Corefile:2:12: this quote is never closed: add '\"'",
        ],
    ),
    (
        ".:53\n",
        [
            "Corefile:1:1: '.:53' begins no block: add '{', directives and '}'",
        ],
    ),
    (
        "forward . 10.0.0.1\n",
        [
            "Corefile:1:1: 'forward' stands outside of a block: begin with '.:53 {'",
        ],
    ),
    (
        "a.example, {\n}\n",
        [
            "Corefile:1:1: another zone must follow this comma",
        ],
    ),
    (
        "a.example,b.example {\n}\n",
        [
            "Corefile:1:1: 'a.example,b.example' is no zone: put a blank after the comma",
        ],
    ),
    (
        ".:0 {\n}\n",
        [
            (
                "Corefile:1:1: '.:0' is no zone: 0 is out of range: give 1 to 65535 as a port "
                "(16 bits)"
            ),
        ],
    ),
    (
        ".:66000 {\n}\n",
        [
            (
                "Corefile:1:1: '.:66000' is no zone: 66000 is out of range: give 1 to 65535 as "
                "a port (16 bits)"
            ),
        ],
    ),
    (
        ".:dns {\n}\n",
        [
            "Corefile:1:1: '.:dns' is no zone: 'dns' is no whole number",
        ],
    ),
    (
        ".: {\n}\n",
        [
            "Corefile:1:1: '.:' is no zone: a port must follow the colon",
        ],
    ),
    (
        "tls://.:853 {\n}\n",
        [
            (
                "Corefile:1:1: 'tls://.:853' is no zone: 'tls://' is not served here: "
                "nodecache serves plain DNS; use dns:// or nothing"
            ),
        ],
    ),
    (
        "a..b {\n}\n",
        [
            (
                "Corefile:1:1: 'a..b' is no zone: a domain name has no empty label; remove the "
                "surplus dot"
            ),
        ],
    ),
    (
        "10.0.0.0/33 {\n}\n",
        [
            (
                "Corefile:1:1: '10.0.0.0/33' is no zone: neither a domain name nor an address "
                "block such as 10.0.0.0/8"
            ),
        ],
    ),
    (
        "b\xfccher.example {\n}\n",
        [
            (
                "Corefile:1:1: 'b\xfccher.example' is no zone: write an international domain name "
                "in its xn-- form"
            ),
        ],
    ),
    (
        "{$ZONE} {\n}\n",
        [
            ("Corefile:1:1: no zone is left in this line: is an environment variable missing?"),
        ],
    ),
    (
        ". {\n}\n. {\n}\n",
        [
            (
                "Corefile:3:1: zone . on port 53 is already served by the block in Corefile:1: "
                "merge the two, or bind different addresses"
            ),
        ],
    ),
    (
        "a.example a.example {\n}\n",
        [
            (
                "Corefile:1:11: zone a.example. on port 53 is already served by the block in "
                "Corefile:1: merge the two, or bind different addresses"
            ),
        ],
    ),
    (
        ". {\n    bind 127.0.0.1\n}\n. {\n}\n",
        [
            (
                "Corefile:4:1: zone . on port 53 is already served by the block in Corefile:1: "
                "merge the two, or bind different addresses"
            ),
        ],
    ),
    (
        "(a) {\n}\n(a) {\n}\n. {\n}\n",
        [
            "Corefile:3:1: snippet 'a' is defined twice: rename one",
        ],
    ),
    (
        ". {\n    import\n}\n",
        [
            "Corefile:2:5: import needs a name: write 'import SNIPPET|FILE|GLOB'",
        ],
    ),
    (
        ". {\n    import nowhere\n}\n",
        [
            ("Corefile:2:12: there is no snippet and no file 'nowhere' (looked for 'nowhere')"),
        ],
    ),
    (
        "(a) {\n    import a\n}\n. {\n    import a\n}\n",
        [
            "Corefile:2:5: imports nest more than 10 deep, or in a circle",
        ],
    ),
    (
        "(a) {\n    cache {args[1]}\n}\n. {\n    import a 30\n}\n",
        [
            "Corefile:5:12: 'a' uses {args[1]}: give import 2 arguments",
        ],
    ),
    (
        "(a) {\n    errors\n",
        [
            "Corefile:1:5: this '{' is never closed: add a line with '}'",
        ],
    ),
    (
        ". {\n    cach 30\n}\n",
        [
            "Corefile:2:5: unknown directive 'cach'; did you mean 'cache'?",
        ],
    ),
    (
        ". {\n    xyzzy\n}\n",
        [
            "Corefile:2:5: unknown directive 'xyzzy'; see -plugins",
        ],
    ),
    (
        ". {\n    kubernetes cluster.local\n}\n",
        [
            (
                "Corefile:2:5: 'kubernetes' is part of CoreDNS, but not of node-cache nor "
                "nodecache: remove it"
            ),
        ],
    ),
    (
        ". {\n    hosts /etc/hosts\n}\n",
        [
            ("Corefile:2:5: 'hosts' changes answers and is not part of this release: remove it"),
        ],
    ),
    (
        ". {\n    cache 30\n    cache 60\n}\n",
        [
            "Corefile:3:5: 'cache' already stands in line 2: keep one of the two",
        ],
    ),
    (
        ". {\n    errors\n    {\n    }\n}\n",
        [
            "Corefile:3:5: put this '{' at the end of the line above",
        ],
    ),
    (
        (
            ". {\n    a {\n    b {\n    c {\n    d {\n    e {\n    f {\n    g {\n    h {\n"
            "    }\n    }\n    }\n    }\n    }\n    }\n    }\n    }\n}\n"
        ),
        [
            "Corefile:2:5: unknown directive 'a'; see -plugins",
            "Corefile:9:7: braces nest more than 8 deep",
        ],
    ),
    (
        ". {\n    bind\n}\n",
        [
            "Corefile:2:5: 'bind' needs an IP address; write 'bind IP...'",
        ],
    ),
    (
        ". {\n    bind eth0\n}\n",
        [
            (
                "Corefile:2:10: 'eth0' is no IP address, and interface names are not "
                "understood here; write 'bind IP...'"
            ),
        ],
    ),
    (
        ". {\n    bind 127.0.0.1 {\n        except 127.0.0.1\n    }\n}\n",
        [
            "Corefile:2:5: 'except' leaves no address to bind; write 'bind IP...'",
        ],
    ),
    (
        ". {\n    errors stderr\n}\n",
        [
            "Corefile:2:12: 'stderr' is not stdout; write 'errors [stdout]'",
        ],
    ),
    (
        ". {\n    errors {\n        consolidate 5m\n    }\n}\n",
        [
            (
                "Corefile:3:9: 'consolidate' needs a REGEXP after DURATION; write 'consolidate "
                "DURATION REGEXP [warning|error|info|debug] [show_first]'"
            ),
        ],
    ),
    (
        ". {\n    errors {\n        consolidate 5m (\n    }\n}\n",
        [
            (
                "Corefile:3:24: '(' is no regular expression: missing ), unterminated "
                "subpattern at position 0; write 'consolidate DURATION REGEXP "
                "[warning|error|info|debug] [show_first]'"
            ),
        ],
    ),
    (
        ". {\n    errors {\n        consolidate 5m x loud\n    }\n}\n",
        [
            (
                "Corefile:3:26: 'loud' is none of warning, error, info, debug; write "
                "'consolidate DURATION REGEXP [warning|error|info|debug] [show_first]'"
            ),
        ],
    ),
    (
        ". {\n    errors {\n        stacktrace now\n    }\n}\n",
        [
            "Corefile:3:20: 'now' is one argument too many; write 'stacktrace'",
        ],
    ),
    (
        ". {\n    cache 0\n}\n",
        [
            (
                "Corefile:2:11: 0 is out of range: give 1 to 604800 seconds (RFC 8767 section "
                "4 advises a week at most); write 'cache [TTL] [ZONES...]'"
            ),
        ],
    ),
    (
        ". {\n    cache 30 a..b\n}\n",
        [
            (
                "Corefile:2:14: a domain name has no empty label; remove the surplus dot; "
                "write 'cache [TTL] [ZONES...]'"
            ),
        ],
    ),
    (
        ". {\n    cache {\n        success\n    }\n}\n",
        [
            (
                "Corefile:3:9: 'success' needs a CAPACITY in entries; write 'success CAPACITY "
                "[TTL] [MINTTL]'"
            ),
        ],
    ),
    (
        ". {\n    cache {\n        success many\n    }\n}\n",
        [
            ("Corefile:3:17: 'many' is no whole number; write 'success CAPACITY [TTL] [MINTTL]'"),
        ],
    ),
    (
        ". {\n    cache {\n        success 0\n    }\n}\n",
        [
            (
                "Corefile:3:17: 0 is out of range: give 1 to 10000000 entries (memory of a "
                "node); write 'success CAPACITY [TTL] [MINTTL]'"
            ),
        ],
    ),
    (
        ". {\n    cache {\n        denial 9984 5 0 7\n    }\n}\n",
        [
            ("Corefile:3:25: '7' is one argument too many; write 'denial CAPACITY [TTL] [MINTTL]'"),
        ],
    ),
    (
        ". {\n    cache {\n        success 1\n        success 2\n    }\n}\n",
        [
            "Corefile:4:9: 'success' already stands in line 3: keep one of the two",
        ],
    ),
    (
        ". {\n    cache {\n        prefetch 2 60\n    }\n}\n",
        [
            (
                "Corefile:3:20: '60' has no unit: write 60s for seconds; write 'prefetch "
                "AMOUNT [DURATION [PERCENTAGE%]]'"
            ),
        ],
    ),
    (
        ". {\n    cache {\n        prefetch 2 1m 20\n    }\n}\n",
        [
            (
                "Corefile:3:23: '20' lacks its per cent sign; write 'prefetch AMOUNT [DURATION "
                "[PERCENTAGE%]]'"
            ),
        ],
    ),
    (
        ". {\n    cache {\n        prefetch 2 1m 95%\n    }\n}\n",
        [
            (
                "Corefile:3:23: 95 is out of range: give 10 to 90 per cent (the bounds of "
                "CoreDNS); write 'prefetch AMOUNT [DURATION [PERCENTAGE%]]'"
            ),
        ],
    ),
    (
        ". {\n    cache {\n        serve_stale 1h sometimes\n    }\n}\n",
        [
            (
                "Corefile:3:24: 'sometimes' is none of immediate, verify; write 'serve_stale "
                "[DURATION [immediate|verify [TIMEOUT]]]'"
            ),
        ],
    ),
    (
        ". {\n    cache {\n        servfail 6m\n    }\n}\n",
        [
            (
                "Corefile:3:18: 360 is out of range: give 0 to 300 seconds (RFC 9520 section "
                "3.2); write 'servfail DURATION'"
            ),
        ],
    ),
    (
        ". {\n    cache {\n        disable everything\n    }\n}\n",
        [
            (
                "Corefile:3:17: 'everything' is none of success, denial; write 'disable "
                "success|denial [ZONES...]'"
            ),
        ],
    ),
    (
        ". {\n    cache {\n        keepttl {\n        }\n    }\n}\n",
        [
            "Corefile:3:9: 'keepttl' takes no braces",
        ],
    ),
    (
        ". {\n    forward\n}\n",
        [
            ("Corefile:2:5: 'forward' needs FROM, the zone to forward; write 'forward FROM TO...'"),
        ],
    ),
    (
        ". {\n    forward .\n}\n",
        [
            ("Corefile:2:5: 'forward' needs an upstream after FROM; write 'forward FROM TO...'"),
        ],
    ),
    (
        ". {\n    forward . dns.example\n}\n",
        [
            (
                "Corefile:2:15: 'dns.example' is neither IP[:PORT] nor a file that exists; "
                "write 'forward FROM TO...'"
            ),
        ],
    ),
    (
        ". {\n    forward . 10.0.0.1:port\n}\n",
        [
            "Corefile:2:15: 'port' is no whole number; write 'forward FROM TO...'",
        ],
    ),
    (
        ". {\n    forward . https://10.0.0.1\n}\n",
        [
            (
                "Corefile:2:15: 'https://' is no way to ask an upstream here: use dns:// or "
                "tls://; write 'forward FROM TO...'"
            ),
        ],
    ),
    (
        ". {\n    forward . [::1\n}\n",
        [
            "Corefile:2:15: '[::1' needs the form [IPv6]:PORT; write 'forward FROM TO...'",
        ],
    ),
    (
        ". {\n    forward . /nowhere\n}\n",
        [
            "Corefile:2:15: cannot read '/nowhere': No such file or directory",
        ],
    ),
    (
        (
            ". {\n    forward . 10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5 10.0.0.6 "
            "10.0.0.7 10.0.0.8 10.0.0.9 10.0.0.10 10.0.0.11 10.0.0.12 10.0.0.13 10.0.0.14 "
            "10.0.0.15 10.0.0.16\n}\n"
        ),
        [
            (
                "Corefile:2:5: 16 is out of range: give 1 to 15 upstreams (the bound of "
                "CoreDNS); write 'forward FROM TO...'"
            ),
        ],
    ),
    (
        ". {\n    forward . 10.0.0.1 {\n        force_tpc\n    }\n}\n",
        [
            "Corefile:3:9: 'forward' has no option 'force_tpc'; did you mean 'force_tcp'?",
        ],
    ),
    (
        ". {\n    forward . 10.0.0.1 {\n        force_tcp yes\n    }\n}\n",
        [
            "Corefile:3:19: 'yes' is one argument too many; write 'force_tcp'",
        ],
    ),
    (
        ". {\n    forward . 10.0.0.1 {\n        expire -1s\n    }\n}\n",
        [
            (
                "Corefile:3:16: -1 is out of range: give 0 to 86400 seconds (CoreDNS closes "
                "idle connections after 10 s); write 'expire DURATION'"
            ),
        ],
    ),
    (
        ". {\n    forward . 10.0.0.1 {\n        max_fails -1\n    }\n}\n",
        [
            (
                "Corefile:3:19: -1 is out of range: give 0 to 4294967295 failures (0 never "
                "takes an upstream for down); write 'max_fails INTEGER'"
            ),
        ],
    ),
    (
        ". {\n    forward . 10.0.0.1 {\n        policy fastest\n    }\n}\n",
        [
            (
                "Corefile:3:16: 'fastest' is none of random, round_robin, sequential; write "
                "'policy random|round_robin|sequential'"
            ),
        ],
    ),
    (
        ". {\n    forward . 10.0.0.1 {\n        health_check 1s now\n    }\n}\n",
        [
            (
                "Corefile:3:25: 'now' is none of no_rec, domain; write 'health_check DURATION "
                "[no_rec] [domain NAME]'"
            ),
        ],
    ),
    (
        ". {\n    forward . 10.0.0.1 {\n        health_check 1s domain\n    }\n}\n",
        [
            (
                "Corefile:3:9: 'health_check' needs a name after domain; write 'health_check "
                "DURATION [no_rec] [domain NAME]'"
            ),
        ],
    ),
    (
        ". {\n    forward . 10.0.0.1 {\n        failover NOERROR\n    }\n}\n",
        [
            (
                "Corefile:3:18: 'NOERROR' is none of FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, "
                "REFUSED, YXDOMAIN, YXRRSET, NXRRSET, NOTAUTH, NOTZONE; write 'failover "
                "RCODE...'"
            ),
        ],
    ),
    (
        ". {\n    forward . 10.0.0.1 {\n        next\n    }\n}\n",
        [
            ("Corefile:3:9: 'next' needs a response code such as SERVFAIL; write 'next RCODE...'"),
        ],
    ),
    (
        ". {\n    forward . 10.0.0.1 {\n        except\n    }\n}\n",
        [
            "Corefile:3:9: 'except' needs the zones to leave out; write 'except ZONES...'",
        ],
    ),
    (
        ". {\n    forward . 10.0.0.1 {\n        tls a b c d\n    }\n}\n",
        [
            "Corefile:3:13: there is no file 'a'; write 'tls [CERT KEY] [CA]'",
            "Corefile:3:15: there is no file 'b'; write 'tls [CERT KEY] [CA]'",
            "Corefile:3:17: there is no file 'c'; write 'tls [CERT KEY] [CA]'",
            "Corefile:3:19: 'd' is one argument too many; write 'tls [CERT KEY] [CA]'",
        ],
    ),
    (
        (
            ". {\n    forward . tls://10.0.0.1%a.example {\n        tls_servername "
            "b.example\n    }\n}\n"
        ),
        [
            (
                "Corefile:2:15: a name after '%' and tls_servername exclude each other; write "
                "'forward FROM TO...'"
            ),
        ],
    ),
    (
        ". {\n    forward . 10.0.0.1 {\n        read_timeout 2 s\n    }\n}\n",
        [
            ("Corefile:3:22: '2' has no unit: write 2s for seconds; write 'read_timeout DURATION'"),
            "Corefile:3:24: 's' is one argument too many; write 'read_timeout DURATION'",
        ],
    ),
    (
        ". {\n    prometheus 9153\n}\n",
        [
            (
                "Corefile:2:16: '9153' has no port: write IP:PORT or :PORT; write 'prometheus "
                "[IP:PORT]'"
            ),
        ],
    ),
    (
        ". {\n    prometheus dns.example:9153\n}\n",
        [
            "Corefile:2:16: 'dns.example' is no IP address; write 'prometheus [IP:PORT]'",
        ],
    ),
    (
        ". {\n    prometheus :9153 {\n        x\n    }\n}\n",
        [
            "Corefile:3:9: 'prometheus' takes no options: remove the braces",
        ],
    ),
    (
        ". {\n    health :8080 :8081\n}\n",
        [
            "Corefile:2:18: ':8081' is one argument too many; write 'health [IP:PORT]'",
        ],
    ),
    (
        ". {\n    health {\n        lameduck\n    }\n}\n",
        [
            "Corefile:3:9: 'lameduck' needs a DURATION; write 'lameduck DURATION'",
        ],
    ),
    (
        ". {\n    forward . __PILLAR__CLUSTER__DNS__\n}\n",
        [
            (
                "Corefile:2:15: __PILLAR__CLUSTER__DNS__ needs the environment variable "
                "KUBE_DNS_SERVICE_HOST, which is not set: create the Service 'kube-dns' with a "
                "ClusterIP before this pod, name another one with -upstreamsvc, or write the "
                "address here"
            ),
        ],
    ),
    (
        ". {\n    forward . __PILLAR__CLUSTER_DNS__\n}\n",
        [
            (
                "Corefile:2:15: there is no variable __PILLAR__CLUSTER_DNS__; did you mean "
                "'__PILLAR__CLUSTER__DNS__'?"
            ),
        ],
    ),
]


@pytest.mark.parametrize(("text", "faults"), BROKEN)
def test_each_fault_names_its_place_and_the_way_out(
    text: str, faults: list[str], find_faults: Callable[..., list[str]]
) -> None:
    assert find_faults(text) == faults


def test_faults_of_all_parts_come_together_in_file_order(
    find_faults: Callable[..., list[str]],
) -> None:
    text = """\
a..b {
    cach 30
    forward . 10.0.0.1 {
        expire 10
        policy fastest
    }
}
. {
    import extra
    errors
"""
    places = [fault.split(" ")[0] for fault in find_faults(text, files={"extra": "\ncache -1\n"})]
    assert places == [
        "Corefile:1:1:",
        "Corefile:2:5:",
        "Corefile:4:16:",
        "Corefile:5:16:",
        "Corefile:8:3:",
        "extra:2:7:",
    ]


def test_no_more_than_a_hundred_faults_are_kept(find_faults: Callable[..., list[str]]) -> None:
    assert len(find_faults(".:53 {\n" + "nonsense\n" * 500 + "}\n")) == 100


def test_terminal_escapes_in_a_word_are_not_repeated(
    find_faults: Callable[..., list[str]],
) -> None:
    (fault,) = find_faults(". {\n    \x1b[31m\n}\n")
    assert fault == "Corefile:2:5: unknown directive '\\x1b[31m'; see -plugins"


def test_long_word_is_shown_cut(find_faults: Callable[..., list[str]]) -> None:
    (fault,) = find_faults(". {\n    " + "x" * 500 + "\n}\n")
    assert fault == f"Corefile:2:5: unknown directive '{'x' * 57}...'; see -plugins"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            " ".join(f"z{n}" for n in range(1001)) + " {\n}\n",
            "Corefile:1:4891: more than 1000 zones in one block are too many",
        ),
        (
            "import bulk\n",
            "bulk:105:1: too many blocks, zones and addresses",
        ),
        (
            ". {\n    cache " + " ".join(f"z{n}" for n in range(1001)) + "\n}\n",
            "Corefile:2:5: more than 1000 items are too many; write 'cache [TTL] [ZONES...]'",
        ),
        (
            ". {\n" + "    forward . 10.0.0.1\n" * 101 + "}\n",
            "Corefile:102:5: more than 100 'forward' in one block",
        ),
        (
            ". {\n    errors {\n        consolidate 5m " + "x" * 1025 + "\n    }\n}\n",
            (
                "Corefile:3:24: a regular expression has at most 1024 characters; write"
                " 'consolidate DURATION REGEXP [warning|error|info|debug] [show_first]'"
            ),
        ),
        (
            ". {\n    forward . tls://10.0.0.1 {\n        tls_servername a b\n    }\n}\n",
            "Corefile:3:26: 'b' is one argument too many; write 'tls_servername NAME'",
        ),
        (
            ". {\n    forward . tls://10.0.0.1 {\n        tls_servername\n    }\n}\n",
            (
                "Corefile:3:9: 'tls_servername' needs the NAME in the certificate;"
                " write 'tls_servername NAME'"
            ),
        ),
    ],
)
def test_further_bounds_and_counts_of_arguments(
    text: str, fault: str, find_faults: Callable[..., list[str]]
) -> None:
    zones = " ".join(f"z{n}" for n in range(100))
    bulk = "".join(
        f"{zones} {{\n  bind {' '.join(f'10.0.{n}.{host}' for host in range(40))}\n}}\n\n"
        for n in range(30)
    )
    assert find_faults(text, {"bulk": bulk}) == [fault]
