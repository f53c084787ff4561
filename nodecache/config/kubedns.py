"""The kube-dns ConfigMap: stub domains as server blocks, and the upstreams of everything else.

Its folder holds one file for each key. Whoever may edit the ConfigMap may write anything; what
goes into the Corefile that people look at is checked to be names, addresses and ports alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from nodecache import limits
from nodecache.config.corefile import Block, Directive, Reader, reason
from nodecache.config.flags import Flags
from nodecache.config.jsontext import JsonTextError, Kind, Value, parse_json
from nodecache.config.model import Address
from nodecache.config.names import parse_name
from nodecache.config.reading import MAX_ITEMS
from nodecache.config.resolvconf import is_own
from nodecache.config.values import nearest, parse_ip, parse_port, printable, shown, split_port
from nodecache.config.words import MAX_TEXT_CHARACTERS, Report, Word
from nodecache.errors import Fault

_FOLDER = "/etc/kube-dns"
_STUB_DOMAINS = "stubDomains"
_UPSTREAMS = "upstreamNameservers"
_FEDERATIONS = "federations"  # of a Kubernetes long gone; never did anything in node-cache
_STUB_USAGE = 'write {"acme.local": ["10.0.0.1", "10.0.0.2:5353"]}'
_UPSTREAM_USAGE = 'write ["10.0.0.1", "10.0.0.2:5353"]'
_MAX_UPSTREAMS = 3  # what kube-dns and node-cache allow
_MAX_STUB_UPSTREAMS = int(limits.UPSTREAM_COUNT.most)
_MAX_UNKNOWN_KEYS = 10
_CACHE_S = "30"  # what node-cache gives stub domains
_HOST_NAME = re.compile(r"[0-9A-Za-z_.-]+")
_WILDCARD = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class KubeDns:
    """What the ConfigMap asks for.

    Attributes:
        blocks: One server block for each stub domain; their words stand in the ConfigMap's files.
        text: The same as Corefile text.
        upstreams: For __PILLAR__UPSTREAM__SERVERS__, as ``forward`` takes them; none for those
            of the resolv.conf.
        faults: What is wrong, each in one of ``kubedns_files``.
        warnings: About keys that mean nothing.
    """

    blocks: tuple[Block, ...] = ()
    text: str = ""
    upstreams: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    warnings: tuple[str, ...] = ()


def kubedns_files(flags: Flags) -> tuple[str, str]:
    """Returns the paths of the two keys that have a meaning."""
    folder = _folder(flags)
    return f"{folder}/{_STUB_DOMAINS}", f"{folder}/{_UPSTREAMS}"


def _folder(flags: Flags) -> str:
    return flags.kubednscm.rstrip("/") or _FOLDER


def is_in_kubedns(fault: Fault) -> bool:
    """Returns whether ``fault`` stands in the ConfigMap, going by the name of its file."""
    return fault.file.rpartition("/")[2] in (_STUB_DOMAINS, _UPSTREAMS)


def read_kubedns(flags: Flags, reader: Reader) -> KubeDns:
    """Reads the ConfigMap of -kubednscm, or /etc/kube-dns; a missing one asks for nothing.

    Raises nothing: what is wrong stands in ``faults``.
    """
    report = Report()
    stub_file, upstream_file = kubedns_files(flags)
    domains = _Reading(stub_file, flags, report).stub_domains(reader)
    upstreams = _Reading(upstream_file, flags, report).upstreams(reader)
    blocks = tuple(_block(domain, servers, flags) for domain, servers in domains)
    return KubeDns(
        blocks,
        _block_text(blocks, stub_file),
        tuple(word.text for word in upstreams),
        tuple(report.faults),
        tuple(_odd_keys(flags, reader)),
    )


def _odd_keys(flags: Flags, reader: Reader) -> Iterator[str]:
    """Warnings about what in the folder is neither a key nor Kubernetes' own (``..data``)."""
    folder = _folder(flags)
    known = (_STUB_DOMAINS, _UPSTREAMS, _FEDERATIONS)
    paths = reader.glob(_WILDCARD.sub(r"[\g<0>]", folder) + "/*")
    if flags.kubednscm and not paths and not reader.exists(folder):
        yield f"-kubednscm: there is no folder {shown(folder)} (yet)"
    names = [path.rpartition("/")[2] for path in paths]
    unknown = [name for name in names if not name.startswith(".") and name not in known]
    for name in unknown[:_MAX_UNKNOWN_KEYS]:
        hint = nearest(name, known) or f"; there are {_STUB_DOMAINS} and {_UPSTREAMS}"
        yield f"{folder}: {shown(name)} is no key of the kube-dns ConfigMap{hint}"


Domain = tuple[Word, tuple[Word, ...]]  # a stub domain, and its servers as forward takes them


class _Reading:
    """Reads one key; every fault ends with how to write it."""

    def __init__(self, file: str, flags: Flags, report: Report) -> None:
        self._file = file
        self._report = report
        self._own = [Address(host, flags.dns_port) for host in flags.localip]
        self._usage = _STUB_USAGE

    def stub_domains(self, reader: Reader) -> list[Domain]:
        top = self._parse(reader)
        if top is None or not self._is(top, Kind.OBJECT, "the stub domains are"):
            return []
        if len(top.members) > MAX_ITEMS:
            self._fault(top, f"more than {MAX_ITEMS} stub domains are too many")
            return []
        seen: dict[str, Value] = {}
        domains = []
        for name, servers in top.members:
            word = self._word(name, _parse_domain)
            first = seen.setdefault(word.text, name) if word else name
            if first is not name:
                self._fault(name, f"{shown(name.text)} already stands in line {first.line}")
            found = self._servers(servers, shown(name.text), _MAX_STUB_UPSTREAMS)
            if servers.kind is Kind.LIST and not servers.items:
                self._fault(servers, f"{shown(name.text)} needs at least one address")
            if word:
                domains.append((word, found))
        return domains

    def upstreams(self, reader: Reader) -> tuple[Word, ...]:
        self._usage = _UPSTREAM_USAGE
        top = self._parse(reader)
        return self._servers(top, _UPSTREAMS, _MAX_UPSTREAMS) if top else ()

    def _parse(self, reader: Reader) -> Value | None:
        """The key's value; None when there is no such key, when it is blank, or broken."""
        try:
            text = reader.read_text(self._file)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            self._report.fault_at(self._file, 0, 0, f"cannot read this: {reason(error)}")
            return None
        if len(text) > MAX_TEXT_CHARACTERS:
            self._report.fault_at(self._file, 0, 0, "longer than 1 MiB; remove what is not needed")
            return None
        if text.strip() in ("", "null"):
            return None
        try:
            return parse_json(text)
        except JsonTextError as error:
            self._report.fault_at(self._file, error.line, error.column, f"{error}; {self._usage}")
            return None

    def _servers(self, value: Value, owner: str, most: int) -> tuple[Word, ...]:
        if not self._is(value, Kind.LIST, f"the addresses of {owner} are"):
            return ()
        if len(value.items) > most:
            text = f"{owner} has {len(value.items)} addresses, and {most} is the most"
            self._fault(value, text)
            return ()
        words = [
            self._word(item, self._parse_server)
            for item in value.items
            if self._is(item, Kind.STRING, "an address is")
        ]
        return tuple({word.text: word for word in words if word}.values())

    def _parse_server(self, text: str) -> str:
        """``IP[:PORT]`` in the form that ``forward`` takes."""
        host, port = split_port(text)
        try:
            host = parse_ip(host)
        except ValueError:
            raise ValueError(f"{shown(text)} is neither IP nor IP:PORT") from None
        address = Address(host, parse_port(port) if port else int(limits.PORT.default))
        if is_own(address, self._own):
            raise ValueError(f"{shown(text)} is this cache itself")
        return str(address) if port else address.host

    def _is(self, value: Value, kind: Kind, what: str) -> bool:
        if value.kind is not kind:
            self._fault(value, f"{what} {kind.value}, not {value.kind.value}")
        return value.kind is kind

    def _word(self, value: Value, parse: Callable[[str], str]) -> Word | None:
        try:
            text = parse(value.text)
        except ValueError as error:
            self._fault(value, str(error))
            return None
        return Word(text, self._file, value.line, value.column, is_literal=True)

    def _fault(self, value: Value, text: str) -> None:
        self._report.fault_at(self._file, value.line, value.column, f"{text}; {self._usage}")


def _parse_domain(text: str) -> str:
    """A host name in lower case with its final dot; nothing that needs quotes or escapes."""
    if not _HOST_NAME.fullmatch(text):
        raise ValueError(f"{shown(text)} is no domain name")
    return parse_name(text).text


def _block(domain: Word, servers: tuple[Word, ...], flags: Flags) -> Block:
    """What node-cache appends for a stub domain: no reload, loop or prometheus."""

    def line(*texts: str) -> Directive:
        name, *arguments = (Word(text, domain.file, domain.line, domain.column) for text in texts)
        return Directive(name, tuple(arguments))

    key = Word(f"{domain.text.removesuffix('.') or '.'}:{flags.dns_port}", *_place(domain), True)
    forward = line("forward", ".")
    directives = (
        line("errors"),
        line("cache", _CACHE_S),
        *([line("bind", *flags.localip)] if flags.localip else []),
        Directive(forward.name, (*forward.arguments, *servers)),
    )
    return Block(domain, (key,), directives)


def _place(word: Word) -> tuple[str, int, int]:
    return word.file, word.line, word.column


def _block_text(blocks: tuple[Block, ...], file: str) -> str:
    parts = [f"\n# From {printable(file)}:\n"] if blocks else []
    for block in blocks:
        lines = [_words_text((row.name, *row.arguments)) for row in block.directives]
        body = "".join(f"    {line}\n" for line in lines)
        parts.append(f"{_words_text(block.keys)} {{\n{body}}}\n")
    return "".join(parts)


def _words_text(words: Iterable[Word]) -> str:
    return " ".join(word.text for word in words)
