"""Answers of a WSGI application in gzip, for those who take it: a tenth of the bytes of many trials."""

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tlopt.dashboard.access import Application, Environ, StartResponse

_LEVEL = 1  # higher ones take twice as long for an eighth less
_GZIP = 16 + zlib.MAX_WBITS  # asks zlib for gzip's header
_BYTES_MIN = 1024
_TYPES = ("application/json", "image/svg+xml", "text/")


@dataclass(frozen=True)
class Compressed:
    """A WSGI application that sends text in gzip, piece by piece as it comes.

    Left as they are: what is compressed already, parts of files, and what is known to be short.
    """

    inner: Application

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "GET" or not takes_gzip(environ):
            return self.inner(environ, start_response)
        given: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> None:
            given[:] = status, headers, rest

        body = self.inner(environ, start)
        status, headers, rest = given
        if not _compresses(status, headers):
            start_response(status, headers, *rest)
            return body
        kept = [(name, value) for name, value in headers if name.lower() != "content-length"]
        start_response(status, [*kept, ("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding")], *rest)
        return _pieces(body)


def takes_gzip(environ: Environ) -> bool:
    """Whether the client has said that it takes gzip, and not with a weight of zero."""
    for item in str(environ.get("HTTP_ACCEPT_ENCODING", "")).lower().replace(" ", "").split(","):
        name, _, weight = item.partition(";q=")
        if name == "gzip":
            return not weight or weight.strip("0.") != ""
    return False


def _compresses(status: str, headers: list[tuple[str, str]]) -> bool:
    said = {name.lower(): value for name, value in headers}
    length = said.get("content-length", str(_BYTES_MIN))
    return (
        status.startswith("200")
        and "content-encoding" not in said
        and said.get("content-type", "").startswith(_TYPES)
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
