"""WSGI middleware that hides the editing controls of a read-only dashboard and adds a notice."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tlopt.dashboard.access import Application, Environ, StartResponse

_HIDDEN = (
    '[aria-label="delete study"]',
    '[aria-label="rename study"]',
    '[aria-label="delete artifact"]',
    '[aria-label="skip trial"]',
    'button:has(svg[data-testid="AddBoxIcon"])',
    'button:has(svg[data-testid="AddIcon"])',
    'button:has(svg[data-testid="EditIcon"])',
    'button:has(svg[data-testid="DeleteIcon"])',
)
NOTICE = "Read-only dashboard. Start it with --edit to edit, rename or delete."
_STYLE = (
    f"<style>{','.join(_HIDDEN)}{{display:none!important}}"
    f'body::after{{content:"{NOTICE}";position:fixed;bottom:0;left:0;right:0;z-index:2000;padding:4px 12px;'
    "background:#1d2430;color:#fff;font:13px/1.4 sans-serif;text-align:center}</style>"
)


@dataclass(frozen=True)
class ReadOnlyPages:
    """A WSGI application that hides editing controls; `AccessControl` refuses the requests themselves."""

    inner: Application

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = str(environ.get("PATH_INFO", ""))
        if environ["REQUEST_METHOD"] != "GET" or not path.startswith("/dashboard"):
            return self.inner(environ, start_response)
        started: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> None:
            started[:] = status, headers, rest

        pieces = self.inner(environ, start)
        try:
            body = b"".join(pieces)
        finally:
            if hasattr(pieces, "close"):
                pieces.close()
        status, headers, rest = started
        if status.startswith("200"):
            body = body.replace(b"</head>", _STYLE.encode() + b"</head>", 1)
            others = [(name, value) for name, value in headers if name.lower() != "content-length"]
            headers = [*others, ("Content-Length", str(len(body)))]
        start_response(status, headers, *rest)
        return [body]
