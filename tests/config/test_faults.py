"""Broken input, each with every fault as users see it: place, what is wrong, what to write."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nodecache.config.flags import parse_flags

COMPLETE = ("-localip", "127.0.0.15", "-setupinterface=false", "-setupiptables=false")

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
        ". {\n    acl {\n        block\n    }\n}\n",
        [
            (
                "Corefile:2:5: 'acl' is part of CoreDNS, but not of node-cache nor nodecache: "
                "remove it"
            ),
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
            (
                "Corefile:2:5: 'bind' needs an IP address or an interface; "
                "write 'bind IP|INTERFACE...'"
            ),
        ],
    ),
    (
        ". {\n    bind eth0\n}\n",
        [
            (
                "Corefile:2:10: 'eth0' is neither an IP address nor an interface that has one; "
                "write 'bind IP|INTERFACE...'"
            ),
        ],
    ),
    (
        ". {\n    bind 127.0.0.1 {\n        except 127.0.0.1\n    }\n}\n",
        [
            "Corefile:2:5: 'except' leaves no address to bind; write 'bind IP|INTERFACE...'",
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
                "Corefile:3:24: '(' is no regular expression: missing ): '('; write "
                "'consolidate DURATION REGEXP [warning|error|info|debug] [show_first]'"
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
        ". {\n    cache {\n        nxdomain_cut\n    }\n}\n",
        [
            ("Corefile:3:9: 'nxdomain_cut' needs at least one ZONE; write 'nxdomain_cut ZONE...'"),
        ],
    ),
    (
        ". {\n    cache {\n        nxdomain_cut a..b\n    }\n}\n",
        [
            (
                "Corefile:3:22: a domain name has no empty label; remove the surplus dot; write "
                "'nxdomain_cut ZONE...'"
            ),
        ],
    ),
    (
        "a.example b.example {\n    cache {\n        nxdomain_cut x.a.example example\n    }\n}\n",
        [
            ("Corefile:3:9: 'example.' is in no zone of this block; write 'nxdomain_cut ZONE...'"),
        ],
    ),
    (
        (
            ". {\n    cache {\n        nxdomain_cut example\n    }\n"
            "    hosts {\n        10.0.0.1 a.example\n    }\n}\n"
        ),
        [
            (
                "Corefile:3:9: 'nxdomain_cut' would hide what hosts of this block says of names "
                "below: remove one of the two"
            ),
        ],
    ),
    (
        (
            ". {\n    cache {\n        nxdomain_cut example\n    }\n"
            "    forward . 10.0.0.1\n    forward . 10.0.0.2\n}\n"
        ),
        [
            (
                "Corefile:3:9: 'nxdomain_cut' would hide what a second forward of this block says "
                "of names below: remove one of the two"
            ),
        ],
    ),
    (
        (
            ". {\n    cache {\n        nxdomain_cut example\n    }\n"
            "    forward . 10.0.0.1 {\n        except a.example\n    }\n}\n"
        ),
        [
            (
                "Corefile:3:9: 'nxdomain_cut' would hide what an except of forward of this block "
                "says of names below: remove one of the two"
            ),
        ],
    ),
    (
        (
            ". {\n    cache {\n        nxdomain_cut example\n    }\n"
            "    forward . 10.0.0.1 {\n        except a.example\n    }\n    rewrite stop {\n"
            "        name exact a.example b.example\n    }\n}\n"
        ),
        [
            (
                "Corefile:3:9: 'nxdomain_cut' would hide what rewrite of this block says of names "
                "below: remove one of the two"
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
        ". {\n    forward . dns_example\n}\n",
        [
            (
                "Corefile:2:15: 'dns_example' is neither IP[:PORT], nor a file that exists, nor a"
                " host name; "
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
        ". {\n    forward . a/nowhere\n}\n",
        [
            (
                "Corefile:2:15: 'a/nowhere' is neither IP[:PORT], nor a file that exists, nor a"
                " host name; "
                "write 'forward FROM TO...'"
            ),
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
        ". {\n    forward . 10.0.0.1 {\n        max_rate 1024pps\n    }\n}\n",
        ["Corefile:3:18: '1024pps' is no whole number; write 'max_rate INTEGER'"],
    ),
    (
        ". {\n    forward . 10.0.0.1 {\n        max_rate 1000001\n    }\n}\n",
        [
            (
                "Corefile:3:18: 1000001 is out of range: give 0 to 1000000 queries a second (0 "
                "sets no limit); write 'max_rate INTEGER'"
            ),
        ],
    ),
    (
        ". {\n    forward . 10.0.0.1 {\n        max_conns 65\n    }\n}\n",
        [
            (
                "Corefile:3:19: 65 is out of range: give 0 to 64 connections (0 chooses 64, the "
                "most to one upstream); write 'max_conns INTEGER'"
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
            "Corefile:3:9: 'prometheus' has no option 'x'; there are: runtime_metrics",
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
        ". {\n    forward . __PILLAR__CLUSTER_DNS__\n}\n",
        [
            (
                "Corefile:2:15: there is no variable __PILLAR__CLUSTER_DNS__; did you mean "
                "'__PILLAR__CLUSTER__DNS__'?"
            ),
        ],
    ),
]

# Words of the command line, beside those that make it complete.
BROKEN_FLAGS: list[tuple[str, str]] = [
    ("-localip 169.254.20.10,10.96.0", "-localip: '10.96.0' is no IP address"),
    ("-localip 169.254.20.10/32", "-localip: '169.254.20.10/32' is no IP address"),
    ("-localip 10.0.0.1;10.0.0.2", "-localip: '10.0.0.1;10.0.0.2' is no IP address"),
    ("-localip=", "-localip is missing: add for instance -localip 169.254.20.10"),
    ("-localip", "-localip needs a value: write -localip IP,..."),
    (
        "-interfacename nodelocaldns-1234",
        "-interfacename: 'nodelocaldns-1234' is no name of an interface: write up to 15 letters",
    ),
    (
        "-interfacename a/b",
        "-interfacename: 'a/b' is no name of an interface: write up to 15 letters",
    ),
    (
        "-rules nft",
        "-rules: 'nft' is none of auto, nftables, iptables-nft, iptables-legacy",
    ),
    ("-keeper=maybe", "-keeper: 'maybe' is neither true nor false"),
    ("-quiet false", "'false' belongs to no flag; write booleans as -flag=false"),
    ("-p 65536", "-p: 65536 is out of range: give 1 to 65535 as a port (16 bits)"),
    ("-dns.port dns", "-dns.port: 'dns' is no whole number"),
    ("-setupinterface=no", "-setupinterface: 'no' is neither true nor false"),
    ("-cache-size 64MB", "-cache-size: '64MB' is no size: write one such as 64MiB or 1GiB"),
    (
        "-cache-size 512KiB",
        (
            "-cache-size: 524288 is out of range: give 1048576 to 68719476736 octets (memory of a"
            " node)"
        ),
    ),
    (
        "-max-inflight 0",
        "-max-inflight: 0 is out of range: give 1 to 1000000 exchanges (memory of a node)",
    ),
    ("-nxdomain-scope no", "-nxdomain-scope: 'no' is none of cluster, all, none"),
    (
        "-syncinterval 0",
        (
            "-syncinterval: 0 is out of range: give 1 to 86400 seconds (node-cache's own default is"
            " 60)"
        ),
    ),
    (
        "-metrics-listen-address 9353",
        "-metrics-listen-address: '9353' has no port: write IP:PORT or :PORT",
    ),
    ("-metrics-listen-address node:9353", "-metrics-listen-address: 'node' is no IP address"),
    (
        "-prometheus-listen-address 127.0.0.15",
        "-prometheus-listen-address: '127.0.0.15' has no port: write IP:PORT or :PORT",
    ),
    (
        "-upstreamsvc Kube_DNS",
        "-upstreamsvc: 'Kube_DNS' is no name of a Service: write one such as kube-dns",
    ),
    (
        "-cluster-domain cluster..local",
        "-cluster-domain: a domain name has no empty label; remove the surplus dot",
    ),
    ("-log-format xml", "-log-format: 'xml' is none of text, json"),
    ("-health-port 0", "-health-port: 0 is out of range: give 1 to 65535 as a port (16 bits)"),
    ("-basecorfile Corefile", "unknown flag '-basecorfile'; did you mean '-basecorefile'?"),
    (
        "-metric-listen-address :9353",
        "unknown flag '-metric-listen-address'; did you mean '-metrics-listen-address'?",
    ),
    ("-conf -quiet", "-conf needs a value: write -conf FILE"),
    ("Corefile", "'Corefile' belongs to no flag"),
    ("-watch=2s", "-watch: '2s' is neither true nor false"),
    ("--", "'--' belongs to no flag"),
]

# Key of the kube-dns ConfigMap, what it holds, place and fault.
BROKEN_CONFIGMAPS: list[tuple[str, str, str]] = [
    (
        "stubDomains",
        '{"acme.local": ["10.0.0.1"]',
        ('1:28: this is no JSON from here on; write {"acme.local": ["10.0.0.1", "10.0.0.2:5353"]}'),
    ),
    (
        "stubDomains",
        "acme.local = 10.0.0.1",
        ('1:1: this is no JSON from here on; write {"acme.local": ["10.0.0.1", "10.0.0.2:5353"]}'),
    ),
    (
        "stubDomains",
        '["10.0.0.1"]',
        (
            '1:1: the stub domains are an object, not a list; write {"acme.local": ["10.0.0.1",'
            ' "10.0.0.2:5353"]}'
        ),
    ),
    (
        "stubDomains",
        "{'acme.local': ['10.0.0.1']}",
        ('1:2: this is no JSON from here on; write {"acme.local": ["10.0.0.1", "10.0.0.2:5353"]}'),
    ),
    (
        "stubDomains",
        '{"acme.local": ["10.0.0.1",]}',
        ('1:28: this is no JSON from here on; write {"acme.local": ["10.0.0.1", "10.0.0.2:5353"]}'),
    ),
    (
        "upstreamNameservers",
        "10.0.0.1",
        '1:5: this is no JSON from here on; write ["10.0.0.1", "10.0.0.2:5353"]',
    ),
    (
        "upstreamNameservers",
        '{"a": 1}',
        (
            "1:1: the addresses of upstreamNameservers are a list, not an object; write"
            ' ["10.0.0.1", "10.0.0.2:5353"]'
        ),
    ),
    (
        "upstreamNameservers",
        '["1.1.1.1", "8.8.8.8", "9.9.9.9", "8.8.4.4"]',
        (
            '1:1: upstreamNameservers has 4 addresses, and 3 is the most; write ["10.0.0.1",'
            ' "10.0.0.2:5353"]'
        ),
    ),
    (
        "upstreamNameservers",
        '"10.0.0.1"',
        (
            '1:1: the addresses of upstreamNameservers are a list, not a string; write ["10.0.0.1",'
            ' "10.0.0.2:5353"]'
        ),
    ),
]

# Directives of one server block that holds nothing else, and their one fault.
BROKEN_DIRECTIVES: list[tuple[str, str]] = [
    (
        "rewrite",
        (
            "2:5: 'rewrite' needs what is to be changed; write 'rewrite [continue|stop]"
            " name|type|class|ttl|rcode|edns0 ...'"
        ),
    ),
    (
        "rewrite name a.example",
        (
            "2:13: 'name' needs TO; write 'rewrite [continue|stop] name"
            " [exact|prefix|suffix|substring|regex] FROM TO [answer auto|name FROM TO|value FROM"
            " TO]...'"
        ),
    ),
    (
        "rewrite name regex ( b.example",
        (
            "2:24: '(' is no regular expression: missing ): '('; write 'rewrite [continue|stop]"
            " name [exact|prefix|suffix|substring|regex] FROM TO [answer auto|name FROM TO|value"
            " FROM TO]...'"
        ),
    ),
    (
        "rewrite name regex (.*)\\.a {2}.b",
        (
            "2:32: the pattern has 1 groups, so there is no {2}; write 'rewrite [continue|stop]"
            " name [exact|prefix|suffix|substring|regex] FROM TO [answer auto|name FROM TO|value"
            " FROM TO]...'"
        ),
    ),
    (
        "rewrite nmae a b",
        (
            "2:13: 'rewrite' cannot change 'nmae'; did you mean 'name'?; write 'rewrite"
            " [continue|stop] name|type|class|ttl|rcode|edns0 ...'"
        ),
    ),
    (
        "rewrite type A AAAAA",
        (
            "2:20: 'AAAAA' is no record type; did you mean 'AAAA'?; write 'rewrite [continue|stop]"
            " type FROM TO'"
        ),
    ),
    (
        "rewrite ttl a.example 30-10",
        (
            "2:27: '30-10' is no range within 0-2147483647 seconds (RFC 2181 section 8); write"
            " 'rewrite [continue|stop] ttl [exact|prefix|suffix|substring|regex] NAME"
            " SECONDS|MIN-MAX'"
        ),
    ),
    (
        "rewrite cname a b",
        (
            "2:13: 'cname' would need a second look-up for each answer, which is not done here:"
            " remove the rule, or change names in answers with 'rewrite name ... answer value FROM"
            " TO'"
        ),
    ),
    (
        "rewrite edns0 local set 0xffee",
        (
            "2:13: 'edns0' needs DATA; write 'rewrite [continue|stop] edns0 local|nsid"
            " set|append|replace|unset [CODE] [DATA] [revert]'"
        ),
    ),
    (
        "rewrite name suffix .a .b answer auto name x y",
        (
            "2:13: 'answer auto' and 'answer name FROM TO' exclude each other; write 'rewrite"
            " [continue|stop] name [exact|prefix|suffix|substring|regex] FROM TO [answer auto|name"
            " FROM TO|value FROM TO]...'"
        ),
    ),
    (
        "rewrite rcode a.example 99 0",
        (
            "2:29: '99' is none of NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, NOTIMPL, REFUSED,"
            " YXDOMAIN, YXRRSET, NXRRSET, NOTAUTH, NOTZONE; write 'rewrite [continue|stop] rcode"
            " [exact|prefix|suffix|substring|regex] NAME FROM TO'"
        ),
    ),
    (
        "rewrite class IN XX",
        "2:22: 'XX' is none of IN, CH, HS; write 'rewrite [continue|stop] class FROM TO'",
    ),
    (
        "template",
        "2:5: 'template' needs a CLASS such as IN; write 'template CLASS TYPE [ZONES...]'",
    ),
    (
        "template IN AA",
        (
            "2:17: 'AA' is no type that is known; did you mean 'CAA'?; write 'template CLASS TYPE"
            " [ZONES...]'"
        ),
    ),
    (
        "template IN A {\n    answer {{ .Name }} 60 IN A 10.0.0.1\n}",
        "3:16: put quotes around the whole record; write 'answer \"NAME TTL CLASS TYPE DATA\"'",
    ),
    (
        'template IN A {\n    answer "{{ .Name }} 60 IN A {{ .Remote }}"\n}',
        (
            "3:16: .Remote is not understood, because the answer is kept for all clients: remove"
            " it; understood are .Name, .Zone, .Class, .Type, .Question.Name, .Question.Qtype,"
            " .Question.Qclass, .Group.NAME, index .Group NAME, index .Match N, parseInt TEXT BASE"
            " BITS and quoted text; write 'answer \"NAME TTL CLASS TYPE DATA\"'"
        ),
    ),
    (
        "template IN A {\n    match (\n}",
        "3:15: '(' is no regular expression: missing ): '('; write 'match REGEX...'",
    ),
    (
        'template IN A {\n    answer "a.example. 60 IN A 10.0.0"\n}',
        (
            "3:16: 'a.example. 60 IN A 10.0.0' is no record: Text input is malformed; write 'answer"
            ' "NAME TTL CLASS TYPE DATA"\''
        ),
    ),
    (
        "template IN A {\n    rcode NXDOMIAN\n}",
        (
            "3:15: 'NXDOMIAN' is none of NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, NOTIMPL,"
            " REFUSED, YXDOMAIN, YXRRSET, NXRRSET, NOTAUTH, NOTZONE; write 'rcode CODE'"
        ),
    ),
    (
        'template IN A {\n    answer "{{ .Name }} 60 IN A {{ .Group.ip }}"\n}',
        "3:16: no 'match' has a group 'ip': write '(?P<NAME>...)' in it",
    ),
    (
        "template IN A {\n    ederror 65536\n}",
        (
            "3:17: 65536 is out of range: give 0 to 65535 as an extended error (RFC 8914 section"
            " 2); write 'ederror CODE [REASON]'"
        ),
    ),
    (
        "hosts {\n    ttl 0\n}",
        (
            "3:13: 0 is out of range: give 1 to 65535 seconds (the bounds of CoreDNS); write 'ttl"
            " SECONDS'"
        ),
    ),
    (
        "hosts {\n    falltrough\n}",
        "3:9: 'hosts' has no option 'falltrough'; did you mean 'fallthrough'?",
    ),
    (
        "hosts {\n    fallthrough_unsupported\n}",
        "2:5: 'fallthrough_unsupported' needs 'fallthrough': add a line with it",
    ),
    (
        "dns64 10.0.0.0/8",
        "2:11: '10.0.0.0/8' is no IPv6 prefix such as 64:ff9b::/96; write 'dns64 [PREFIX]'",
    ),
    (
        "dns64 64:ff9b::/95",
        (
            "2:11: '64:ff9b::/95' has 95 bits: RFC 6052 knows 32, 40, 48, 56, 64 and 96; write"
            " 'dns64 [PREFIX]'"
        ),
    ),
    ("dns64 {\n    prefix\n}", "3:9: 'prefix' needs a PREFIX; write 'prefix PREFIX'"),
    (
        "dns64 {\n    translate-all\n}",
        "3:9: 'dns64' has no option 'translate-all'; did you mean 'translate_all'?",
    ),
    (
        "loadbalance random",
        (
            "2:17: 'random' is none of round_robin, weighted; write 'loadbalance"
            " [round_robin|weighted WEIGHTFILE]'"
        ),
    ),
    (
        "loadbalance weighted",
        (
            "2:5: 'loadbalance' needs a WEIGHTFILE; write 'loadbalance [round_robin|weighted"
            " WEIGHTFILE]'"
        ),
    ),
    (
        "loadbalance {\n    prefer 10.0.0.0\n}",
        "3:16: '10.0.0.0' is no network such as 10.0.0.0/8; write 'prefer CIDR...'",
    ),
    (
        "log . {\n    class errors\n}",
        (
            "3:15: 'errors' is none of all, success, denial, error; write 'class"
            " all|success|denial|error...'"
        ),
    ),
    (
        'log . "{typ}"',
        (
            "2:11: there is no placeholder '{typ}'; did you mean '{type}'?; there are {type} {name}"
            " {class} {proto} {remote} {port} {local} {size} {duration} {rcode} {rsize} {>rflags}"
            " {>bufsize} {>do} {>id} {>opcode} {/log/class} {/log/type} {/forward/upstream}"
            " {common} {combined}; write 'log [NAMES...] [FORMAT]'"
        ),
    ),
    (
        "bufsize 256",
        (
            "2:13: 256 is out of range: give 512 to 4096 octets (the bounds of CoreDNS); write"
            " 'bufsize [SIZE]'"
        ),
    ),
    ("bufsize 1232 4096", "2:18: '4096' is one argument too many; write 'bufsize [SIZE]'"),
    ("bufsize big", "2:13: 'big' is no whole number; write 'bufsize [SIZE]'"),
    (
        "timeouts",
        (
            "2:5: 'timeouts' needs at least one option in its braces; write 'timeouts {"
            " read|write|idle DURATION }'"
        ),
    ),
    (
        "timeouts {\n    read 0s\n}",
        (
            "3:14: 0 is out of range: give 1 to 86400 seconds (the bounds of CoreDNS); write 'read"
            " DURATION'"
        ),
    ),
    ("timeouts {\n    idel 10s\n}", "3:9: 'timeouts' has no option 'idel'; did you mean 'idle'?"),
    (
        "timeouts {\n    maxtcpqueries 10\n}",
        (
            "3:9: 'maxtcpqueries' has no place here: a connection may carry any number of queries;"
            " remove it"
        ),
    ),
    ("ready 8181", "2:11: '8181' has no port: write IP:PORT or :PORT; write 'ready [IP:PORT]'"),
    (
        "ready {\n    monitor always\n}",
        (
            "3:17: 'always' is none of until-ready, continuously; write 'monitor"
            " until-ready|continuously'"
        ),
    ),
    (
        "reload 1s",
        (
            "2:12: 1 is out of range: give 2 to 86400 seconds (CoreDNS's own least is 2 s); write"
            " 'reload [INTERVAL] [JITTER]'"
        ),
    ),
    (
        "reload 30s 15s 5s",
        "2:20: '5s' is one argument too many; write 'reload [INTERVAL] [JITTER]'",
    ),
    (
        "reload 30",
        "2:12: '30' has no unit: write 30s for seconds; write 'reload [INTERVAL] [JITTER]'",
    ),
    (
        "pprof localhost",
        "2:11: 'localhost' has no port: write IP:PORT or :PORT; write 'pprof [IP:PORT]'",
    ),
    (
        "pprof {\n    block 1\n}",
        (
            "3:9: 'block' profiles goroutines, of which there are none here: remove it;"
            " /debug/pprof/tasks shows what waits, and where"
        ),
    ),
    (
        "trace zipkin localhost:9411",
        (
            "2:5: 'trace' would send spans to Zipkin or Datadog, which nodecache does not: remove"
            " it; 'log' writes each query with its duration, 'errors' each failure, and"
            " 'prometheus' shows durations by server, zone and upstream"
        ),
    ),
    ("debug on", "2:11: 'on' is one argument too many; write 'debug'"),
    ("loop 3", "2:10: '3' is one argument too many; write 'loop'"),
    ("whoami 1", "2:12: '1' is one argument too many; write 'whoami'"),
    (
        "kubernetes cluster.local",
        "2:5: 'kubernetes' is part of CoreDNS, but not of node-cache nor nodecache: remove it",
    ),
]


@pytest.mark.parametrize(("text", "faults"), BROKEN)
def test_each_fault_names_its_place_and_the_way_out(
    text: str, faults: list[str], find_faults: Callable[..., list[str]]
) -> None:
    assert find_faults(text) == faults


@pytest.mark.parametrize(("words", "fault"), BROKEN_FLAGS)
def test_each_broken_flag_has_one_fault(words: str, fault: str) -> None:
    _, faults = parse_flags([*COMPLETE, *words.split()])
    assert [str(found) for found in faults] == [f"command line: {fault}"]


@pytest.mark.parametrize(("key", "text", "fault"), BROKEN_CONFIGMAPS)
def test_each_broken_config_map_has_one_fault(
    key: str, text: str, fault: str, find_faults: Callable[..., list[str]]
) -> None:
    path = f"/etc/kube-dns/{key}"
    assert find_faults(". {\n}\n", files={path: text}) == [f"{path}:{fault}"]


@pytest.mark.parametrize(("lines", "fault"), BROKEN_DIRECTIVES)
def test_each_broken_directive_has_one_fault(
    lines: str, fault: str, find_faults: Callable[..., list[str]]
) -> None:
    text = "".join(f"    {line}\n" for line in lines.split("\n"))
    assert find_faults(f". {{\n{text}}}\n") == [f"Corefile:{fault}"]


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
            ". {\n    errors {\n        consolidate 5m " + "x" * 4001 + "\n    }\n}\n",
            (
                f"Corefile:3:24: '{'x' * 57}...' is no regular expression: it takes more than 4000"
                " steps: shorten it or its repetitions; write"
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
