"""Asks the API server, as a pod may: over TLS, with the ServiceAccount's token, in bounded time.

One connection for each request: there are two a minute, and whatever changes meanwhile (the token,
the CA, the API server itself) is met afresh.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final, Protocol, TypeVar

import h11

from nodecache import __version__
from nodecache.errors import ApiError
from nodecache.files import read_regular
from nodecache.printing import printable
from nodecache.webhook.certificates.model import ApiServer

# What kubelet gives to each pod that may have a token.
_FOLDER: Final = "/var/run/secrets/kubernetes.io/serviceaccount"

_TIMEOUT_S = 10.0  # from connecting to the last octet
_MOST_OCTETS = 4 * 1024 * 1024  # an API server keeps 1.5 MiB of one object at most
_MOST_HEAD_OCTETS = 64 * 1024
_MOST_TOKEN_OCTETS = 64 * 1024
_MOST_CA_OCTETS = 1024 * 1024
_CHUNK_OCTETS = 64 * 1024
_MOST_DATE_S = 2**33  # in the year 2242; certificates end in 9999 at the latest


_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Reply:
    """What the API server answered.

    Attributes:
        status: The HTTP status.
        body: All octets of it.
        date: When, by its own clock, in Unix seconds; None if it does not say.
    """

    status: int
    body: bytes
    date: float | None


def find_api_server(environ: Mapping[str, str]) -> ApiServer:
    """Returns where a pod finds its API server; no name is looked up for that.

    Raises:
        ApiError: The environment does not say; this is no pod.
    """
    host = environ.get("KUBERNETES_SERVICE_HOST", "")
    port = environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not port.isascii() or not port.isdecimal():
        step = "run it in a pod, or give it a certificate by files"
        raise ApiError(f"KUBERNETES_SERVICE_HOST and _PORT name no API server: {step}")
    return ApiServer(host, int(port), f"{_FOLDER}/token", f"{_FOLDER}/ca.crt")


class ApiClient:
    """Sends requests.

    Args:
        server: To whom.
        timeout_s: Seconds that each may take in all.
    """

    def __init__(self, server: ApiServer, timeout_s: float = _TIMEOUT_S) -> None:
        self._server = server
        self._timeout_s = timeout_s
        host = f"[{server.host}]" if ":" in server.host else server.host
        self._place = f"{host}:{server.port}"

    async def get(self, path: str) -> Reply:
        """Returns the answer to a GET.

        Raises:
            ApiError: There is none.
        """
        return await self._ask("GET", path, {}, b"")

    async def patch(self, path: str, media_type: str, body: bytes) -> Reply:
        """Returns the answer to a PATCH.

        Raises:
            ApiError: There is none.
        """
        length = str(len(body))
        headers = {"Content-Type": media_type, "Content-Length": length}
        return await self._ask("PATCH", path, headers, body)

    async def _ask(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Reply:
        try:
            return await self._try(method, path, headers, body)
        except ssl.SSLCertVerificationError as error:
            reason = f"{self._server.ca_file} does not verify it: {error.verify_message}"
        except TimeoutError:
            reason = f"it took longer than {self._timeout_s:g} s"
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
        except h11.RemoteProtocolError as error:
            reason = f"that is no HTTP: {error}"
        step = "check the pod's network and NetworkPolicies"
        raise ApiError(
            f"no answer from the API server at {self._place}: {printable(reason)}; {step}"
        )

    async def _try(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Reply:
        protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MOST_HEAD_OCTETS)
        request = self._make_request(method, path, headers)
        octets = [protocol.send(each) for each in (request, h11.Data(body), h11.EndOfMessage())]
        context = _make_context(self._server.ca_file)
        async with asyncio.timeout(self._timeout_s):
            reader, writer = await asyncio.open_connection(self._server.host, self._server.port)
            try:
                channel = _Channel(reader, writer, context, self._server.host)
                await channel.write(b"".join(each or b"" for each in octets))
                return await _receive(protocol, channel)
            finally:
                writer.transport.abort()

    def _make_request(self, method: str, path: str, headers: dict[str, str]) -> h11.Request:
        token = _read(self._server.token_file, _MOST_TOKEN_OCTETS).strip()
        common = {
            "Host": self._place,
            "Authorization": f"Bearer {token}",
            "Accept": "application/json",
            "User-Agent": f"nodecache-webhook/{__version__}",
            "Connection": "close",
        }
        try:
            return h11.Request(method=method, target=path, headers=[*(common | headers).items()])
        except h11.LocalProtocolError:
            raise ApiError(f"{self._server.token_file} holds no token: mount it anew") from None


class _Readable(Protocol):
    async def read(self) -> bytes: ...


class _Channel:
    """TLS over two streams.

    uvloop's own leaves a transport behind when it is cancelled amid a handshake, and a loop with
    one cannot be closed.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        context: ssl.SSLContext,
        host: str,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)

    async def write(self, octets: bytes) -> None:
        """Sends all of it, after a handshake if there was none."""
        await self._do(lambda: self._tls.write(octets))

    async def read(self) -> bytes:
        """Returns what comes next; nothing at the end."""
        try:
            return await self._do(lambda: self._tls.read(_CHUNK_OCTETS))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    async def _do(self, action: Callable[[], _Result]) -> _Result:
        while True:
            try:
                result = action()
            except ssl.SSLWantReadError:
                await self._flush()
                if octets := await self._reader.read(_CHUNK_OCTETS):
                    self._incoming.write(octets)
                else:
                    self._incoming.write_eof()
            else:
                await self._flush()
                return result

    async def _flush(self) -> None:
        self._writer.write(self._outgoing.read())
        await self._writer.drain()


async def _receive(protocol: h11.Connection, channel: _Readable) -> Reply:
    """Returns the final response.

    Raises:
        h11.RemoteProtocolError: It is none, is cut short, or is too long.
    """
    head: h11.Response | None = None
    body = bytearray()
    left = _MOST_OCTETS
    while not isinstance(event := protocol.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            octets = await channel.read()
            left -= len(octets)
            if left < 0:
                raise h11.RemoteProtocolError(f"it is longer than {_MOST_OCTETS >> 20} MiB")
            protocol.receive_data(octets)
        elif isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif not isinstance(event, h11.InformationalResponse):
            raise h11.RemoteProtocolError("it hung up")
    if head is None:
        raise h11.RemoteProtocolError("it has no head")
    return Reply(head.status_code, bytes(body), _date(dict(head.headers).get(b"date", b"")))


def _date(header: bytes) -> float | None:
    try:
        date = parsedate_to_datetime(header.decode("ascii")).timestamp()
    except (ValueError, OverflowError):
        return None
    return date if 0 < date < _MOST_DATE_S else None


def _read(path: str, most_octets: int) -> str:
    """Returns a file's text.

    Raises:
        ApiError: There is none.
    """
    try:
        return read_regular(path, most_octets).decode("ascii")
    except (OSError, ValueError) as error:
        step = "the pod needs automountServiceAccountToken: true"
        raise ApiError(f"{path} cannot be read ({printable(str(error))}): {step}") from None


def _make_context(ca_file: str) -> ssl.SSLContext:
    ca_pem = _read(ca_file, _MOST_CA_OCTETS)
    # Not create_default_context: from Python 3.13 on it refuses CAs without the extensions of
    # RFC 5280 section 4.2.1, and clusters have such ones.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=ca_pem)
    except (ssl.SSLError, ValueError):
        raise ApiError(f"{ca_file} holds no certificates: mount it anew") from None
    return context
