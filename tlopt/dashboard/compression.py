"""WSGI middleware that compresses responses with gzip, to a tenth of the size for many trials."""

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tlopt.dashboard.access import Application, Environ, StartResponse

_LEVEL = 1  # higher levels take twice as long to save another eighth
_GZIP = 16 + zlib.MAX_WBITS  # makes zlib write the header of gzip
_BYTES_MIN = 1024
_TYPES = ("application/json", "image/svg+xml", "text/")


@dataclass(frozen=True)
class Compressed:
    """A WSGI application that compresses text in a stream, for clients that accept gzip.

    Responses that are already compressed, partial or known to be short are not changed.
    """

    inner: Application

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "GET" or not accepts_gzip(environ):
            return self.inner(environ, start_response)
        started: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> None:
            started[:] = status, headers, rest

        body = self.inner(environ, start)
        status, headers, rest = started
        if not _compresses(status, headers):
            start_response(status, headers, *rest)
            return body
        kept = [(name, value) for name, value in headers if name.lower() != "content-length"]
        start_response(status, [*kept, ("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding")], *rest)
        return _pieces(body)


def accepts_gzip(environ: Environ) -> bool:
    """Whether the client accepts gzip, with a weight above zero."""
    for item in str(environ.get("HTTP_ACCEPT_ENCODING", "")).lower().replace(" ", "").split(","):
        name, _, weight = item.partition(";q=")
        if name == "gzip":
            return not weight or weight.strip("0.") != ""
    return False


def _compresses(status: str, headers: list[tuple[str, str]]) -> bool:
    values = {name.lower(): value for name, value in headers}
    length = values.get("content-length", str(_BYTES_MIN))
    return (
        status.startswith("200")
        and "content-encoding" not in values
        and values.get("content-type", "").startswith(_TYPES)
        and not (length.isdigit() and int(length) < _BYTES_MIN)
    )


def _pieces(body: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(_LEVEL, wbits=_GZIP)
    try:
        for piece in body:
            if packed := packer.compress(piece):
                yield packed
        yield packer.flush()
    finally:
        if hasattr(body, "close"):
            body.close()
