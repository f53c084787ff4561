"""Rules of others that are about DNS, found in what nft and iptables-save print. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

from nodecache.commands.doctor.seen import ForeignRule

_MOST_RULES = 32
_OURS = ("inet nodecache", "ip kube-proxy", "ip6 kube-proxy")
_CHAINS_OF_OTHERS_AND_OURS = ("KUBE-", "NODECACHE-")
# Of these iptables-save tells better.
_OF_IPTABLES = re.compile(r"ip6? (raw|mangle|nat|filter|security)")

_TABLE = re.compile(r"table (\w+ [^ ]+) \{")
_CHAIN = re.compile(r"chain ([^ ]+) \{")
_NFT_PORT = re.compile(r"\bdport (53\b|domain\b|\{[^}]*\b(53|domain)\b)")
_NFT_LEADS = re.compile(r"\b(dnat|redirect|tproxy)\b|\bdaddr set\b")
_NFT_ADDRESS = re.compile(r"\bdaddr (?!set\b)(\{[^}]*\}|[^ ]+)")
_PORT = re.compile(r"--dports? (?:\S+,)?53(?:,\S+)?(?: |$)")
_LEADS = re.compile(r"-j (DNAT|REDIRECT|TPROXY)\b")
_ADDRESS = re.compile(r"-d ([^ /]+)")
_DROPS = re.compile(r"\b(drop|reject|DROP|REJECT)\b")
# What makes a rule one for some packets only.
_SOME_ONLY = re.compile(
    r"\b(saddr|iif|iifname|ct|limit|mark|meta mark|-s|-i|--state|--ctstate|--limit|--mark|!=)\b"
)


def is_of_interest(line: str) -> bool:
    """Whether a line of a listing matters to ``read_nft`` or ``read_saved``."""
    text = line.strip()
    return (
        text.startswith(("table ", "chain ", "*", ":"))
        or bool(_NFT_PORT.search(text) or _PORT.search(text))
        or "hook " in text
    )


def read_nft(lines: Iterable[str], ours: Collection[str]) -> tuple[ForeignRule, ...]:
    """Returns the rules about DNS of ``nft list ruleset``, without ours and kube-proxy's."""
    found: list[ForeignRule] = []
    table = chain = ""
    for line in map(str.strip, lines):
        if start := _TABLE.match(line):
            table = start[1]
        elif start := _CHAIN.match(line):
            chain = start[1]
        elif not _is_known(table, chain) and _NFT_PORT.search(line):
            where = f"nft table {table}, chain {chain}"
            found += _judge(where, line, _NFT_LEADS, _NFT_ADDRESS, ours)
    return tuple(found[:_MOST_RULES])


def read_saved(lines: Iterable[str], tool: str, ours: Collection[str]) -> tuple[ForeignRule, ...]:
    """Returns the rules about DNS of iptables-save, without ours, node-cache's, kube-proxy's."""
    found: list[ForeignRule] = []
    table = ""
    for line in lines:
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith("-A ") and _PORT.search(line):
            chain = line.split(" ", 2)[1]
            if not chain.startswith(_CHAINS_OF_OTHERS_AND_OURS):
                where = f"{tool}, table {table}"
                found += _judge(where, line, _LEADS, _ADDRESS, ours)
    return tuple(found[:_MOST_RULES])


def _is_known(table: str, chain: str) -> bool:
    return table in _OURS or bool(_OF_IPTABLES.fullmatch(table) and chain.isupper())


def _judge(
    where: str,
    text: str,
    leads: re.Pattern[str],
    address: re.Pattern[str],
    ours: Collection[str],
) -> Iterator[ForeignRule]:
    is_drop = bool(_DROPS.search(text))
    if not is_drop and not leads.search(text):
        return
    named = address.search(text)
    concerns = next((host for host in ours if named and _names(named[1], host)), "")
    if named is None or concerns:
        is_certain = not _SOME_ONLY.search(text)
        yield ForeignRule(where, text, is_drop, concerns, is_certain)


def _names(text: str, host: str) -> bool:
    return host in re.split(r"[{},\s]+", text)
