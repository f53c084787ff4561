"""The kube-dns ConfigMap: stub domains as server blocks, and the upstreams of everything else.

Its folder holds one file for each key. Whoever may edit the ConfigMap may write anything; what
goes into the Corefile that people look at is checked to be names, addresses and ports alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from nodecache import limits
from nodecache.config.corefile import Block, Directive, Reader, reason
from nodecache.config.flags import Flags
from nodecache.config.jsontext import JsonTextError, Shape, Value, parse_json
from nodecache.config.lexer import MAX_TEXT_CHARACTERS, Report, Word
from nodecache.config.model import Address
from nodecache.config.names import parse_name
from nodecache.config.reading import MAX_ITEMS
from nodecache.config.resolvconf import is_own
from nodecache.config.values import nearest, parse_ip, parse_port, split_port
from nodecache.errors import Fault
from nodecache.printing import printable, shown

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
        upstreams: For __PILLAR__UPSTREAM__SERVERS__, as ``forward`` takes them; none for those
            of the resolv.conf.
        faults: Why nothing of it can be used, each in one of ``kubedns_files``.
        warnings: About keys that mean nothing, and what is left out.
        has_left_out: Whether a stub domain or an address is left out.
    """

    blocks: tuple[Block, ...] = ()
    upstreams: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    warnings: tuple[str, ...] = ()
    has_left_out: bool = False


def kubedns_files(flags: Flags) -> tuple[str, str]:
    """Returns the paths of the two keys that have a meaning."""
    folder = _folder(flags)
    return f"{folder}/{_STUB_DOMAINS}", f"{folder}/{_UPSTREAMS}"


def _folder(flags: Flags) -> str:
    return flags.kubednscm.rstrip("/") or _FOLDER


def is_of_kubedns(file: str) -> bool:
    """Returns whether a file is a key of the ConfigMap, going by its name."""
    return file.rpartition("/")[2] in (_STUB_DOMAINS, _UPSTREAMS)


def is_in_kubedns(fault: Fault) -> bool:
    """Returns whether ``fault`` stands in the ConfigMap."""
    return is_of_kubedns(fault.file)


def read_kubedns(flags: Flags, reader: Reader) -> KubeDns:
    """Reads the ConfigMap of -kubednscm, or /etc/kube-dns; a missing one asks for nothing.

    Raises nothing: what is wrong stands in ``faults``.
    """
    report = Report()
    stub_file, upstream_file = kubedns_files(flags)
    stubs = _Reading(stub_file, flags, report)
    others = _Reading(upstream_file, flags, report)
    domains, upstreams = stubs.stub_domains(reader), others.upstreams(reader)
    return KubeDns(
        tuple(_block(domain, servers, flags) for domain, servers in domains),
        tuple(word.text for word in upstreams),
        tuple(report.faults),
        (*report.warnings, *_odd_keys(flags, reader)),
        stubs.has_left_out or others.has_left_out,
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
    """Reads one key; every fault and warning ends with how to write it.

    Attributes:
        has_left_out: Whether something could not be used.
    """

    def __init__(self, file: str, flags: Flags, report: Report) -> None:
        self._file = file
        self._report = report
        self._own = [Address(host, flags.dns_port) for host in flags.localip]
        self._usage = _STUB_USAGE
        self.has_left_out = False

    def stub_domains(self, reader: Reader) -> list[Domain]:
        """Returns what can be used; a slip in one domain takes nothing from the others."""
        top = self._parse(reader)
        if top is None or self._is_wrong(top, Shape.OBJECT, "the stub domains are"):
            return []
        if len(top.members) > MAX_ITEMS:
            self._fault(top, f"more than {MAX_ITEMS} stub domains are too many")
            return []
        domains: dict[str, Domain] = {}
        for name, servers in top.members:
            word = self._word(name, _parse_domain)
            found = self._servers(servers, _MAX_STUB_UPSTREAMS)
            if word is None:
                continue
            if not found:
                self._leave_out(name, f"{shown(name.text)} has no address that can be used")
            elif word.text in domains:
                line = domains[word.text][0].line
                text = f"{shown(name.text)} already stands in line {line}: the last one counts"
                self._report.warn(word, text)
            if found:
                domains[word.text] = word, found
        return list(domains.values())

    def upstreams(self, reader: Reader) -> tuple[Word, ...]:
        """Returns what can be used; nothing at all, or more than three, is a fault."""
        self._usage = _UPSTREAM_USAGE
        top = self._parse(reader)
        if top is None or self._is_wrong(top, Shape.LIST, f"the addresses of {_UPSTREAMS} are"):
            return ()
        count = len(top.items)
        if count > _MAX_UPSTREAMS:
            text = f"{_UPSTREAMS} has {count} addresses, and {_MAX_UPSTREAMS} is the most"
            self._fault(top, text)
            return ()
        found = self._servers(top, _MAX_UPSTREAMS)
        if count and not found:
            self._fault(top, f"{_UPSTREAMS} has no address that can be used")
        return found

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

    def _servers(self, value: Value, most: int) -> tuple[Word, ...]:
        """The addresses of a list that can be used."""
        if value.shape is not Shape.LIST:
            self._leave_out(value, f"addresses are {Shape.LIST.value}, not {value.shape.value}")
        if len(value.items) > most:
            self._leave_out(
                value, f"what is behind the first {most} of {len(value.items)} addresses"
            )
        words = [self._word(item, self._parse_server) for item in value.items[:most]]
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

    def _is_wrong(self, value: Value, shape: Shape, what: str) -> bool:
        if value.shape is not shape:
            self._fault(value, f"{what} {shape.value}, not {value.shape.value}")
        return value.shape is not shape

    def _word(self, value: Value, parse: Callable[[str], str]) -> Word | None:
        try:
            if value.shape is not Shape.STRING:
                raise ValueError(f"this is {value.shape.value} and should be {Shape.STRING.value}")
            text = parse(value.text)
        except ValueError as error:
            self._leave_out(value, str(error))
            return None
        return self._place(value, text)

    def _place(self, value: Value, text: str = "") -> Word:
        return Word(text, self._file, value.line, value.column, is_literal=True)

    def _leave_out(self, value: Value, text: str) -> None:
        self.has_left_out = True
        self._report.warn(self._place(value), f"{text}: left out; {self._usage}")

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


def corefile_text(blocks: Sequence[Block]) -> str:
    """Returns server blocks of the ConfigMap as they would stand in a Corefile."""
    parts = [f"\n# From {printable(blocks[0].place.file)}:\n"] if blocks else []
    for block in blocks:
        lines = [_words_text((row.name, *row.arguments)) for row in block.directives]
        body = "".join(f"    {line}\n" for line in lines)
        parts.append(f"{_words_text(block.keys)} {{\n{body}}}\n")
    return "".join(parts)


def _words_text(words: Iterable[Word]) -> str:
    return " ".join(word.text for word in words)
