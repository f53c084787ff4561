"""Reads what iptables-save prints, in whichever order and spelling a release prints it."""

from __future__ import annotations

import functools
import ipaddress
import shlex
from dataclasses import dataclass

Options = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class PrintedRule:
    """One rule, comparable: two texts that mean the same are equal.

    Attributes:
        chain: The chain it stands in.
        options: Each option with its values ("!" in front of a negated one), sorted.
    """

    chain: str
    options: Options

    def target(self) -> str:
        """Returns the chain or target that it jumps to, or "" for none."""
        for option in self.options:
            if option[0] in ("-j", "-g") and len(option) > 1:
                return option[1]
        return ""


@dataclass(frozen=True, slots=True)
class PrintedTable:
    """The chains and rules of one table; each rule with the line that it was printed as."""

    chains: frozenset[str]
    rules: tuple[tuple[PrintedRule, str], ...]


def parse_table(text: str) -> PrintedTable:
    """Returns what the lines of one table hold; lines that are neither chain nor rule are skipped.

    Raises nothing.
    """
    lines = text.splitlines()
    chains = frozenset(line[1:].split(" ")[0] for line in lines if line.startswith(":"))
    rules = ((parse_rule(line), line) for line in lines if line.startswith("-A "))
    return PrintedTable(chains, tuple((rule, line) for rule, line in rules if rule is not None))


@functools.lru_cache(maxsize=4096)  # node-cache leaves the same line behind a thousand times
def parse_rule(line: str) -> PrintedRule | None:
    """Returns the rule of a line that begins with ``-A CHAIN``, or None for any other."""
    try:
        words = shlex.split(line)
    except ValueError:
        return None
    if len(words) < 2 or words[0] != "-A":
        return None
    return PrintedRule(words[1], _normalize(_group(words[2:])))


def _group(words: list[str]) -> list[tuple[str, ...]]:
    """Puts each option and its values together."""
    groups: list[list[str]] = []
    is_negated = False
    for word in words:
        if word == "!":
            is_negated = True
        elif word.startswith("-") or not groups:
            groups.append(["!", word] if is_negated else [word])
            is_negated = False
        else:
            groups[-1].append(word)
    return [tuple(group) for group in groups]


def _normalize(groups: list[tuple[str, ...]]) -> Options:
    """Irons out what differs between releases and variants.

    ``-m udp`` follows from ``-p udp``; NOTRACK is an alias of ``CT --notrack`` and older releases
    print the latter; addresses have more than one spelling.
    """
    protocols = {group[1] for group in groups if group[0] == "-p" and len(group) == 2}
    implied = {("-m", protocol) for protocol in protocols}
    found = [_spell(group) for group in groups if group not in implied]
    if ("-j", "CT") in found and ("--notrack",) in found:
        found.remove(("-j", "CT"))
        found.remove(("--notrack",))
        found.append(("-j", "NOTRACK"))
    return tuple(sorted(found))


def _spell(group: tuple[str, ...]) -> tuple[str, ...]:
    if group[0] not in ("-s", "-d") or len(group) != 2:
        return group
    try:
        return (group[0], str(ipaddress.ip_network(group[1], strict=False)))
    except ValueError:
        return group
