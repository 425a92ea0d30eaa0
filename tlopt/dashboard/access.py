"""WSGI middleware that controls access to optuna-dashboard, which has no login of its own."""

import base64
import binascii
import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlopt.errors import SpecError

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

PASSWORD_CHARACTERS_MIN = 12
_BODY_BYTES_MAX = 1 << 20  # of a request; the largest are notes, which are text
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_SAME_SITE = ("same-origin", "none", "")  # values of Sec-Fetch-Site in requests from the dashboard's pages
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "private"),
)
_DROPPED_HEADERS = ("access-control-allow-origin", "server", "cache-control")


@dataclass(frozen=True)
class AccessControl:
    """A WSGI application that forwards allowed requests.

    Attributes:
        inner: the application to protect.
        edits: whether requests that change something are allowed.
        logins: passwords by user, see `read_logins`; if empty, no login, and only this machine has access.
    """

    inner: Application
    edits: bool
    logins: Mapping[str, str]

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        refusal = self._refusal(environ)
        if refusal is None:
            return self.inner(environ, _hardened(environ, start_response))
        status, text, headers = refusal
        start_response(status, [("Content-Type", "text/plain; charset=utf-8"), *headers, *_HEADERS])
        return [f"{text}\n".encode()]

    def _refusal(self, environ: Environ) -> tuple[str, str, list[tuple[str, str]]] | None:
        """Status, text and headers of the response if the request is refused."""
        if self.logins and not self._is_login(environ.get("HTTP_AUTHORIZATION", "")):
            challenge = [("WWW-Authenticate", 'Basic realm="tlopt", charset="UTF-8"')]
            return "401 Unauthorized", "login required", challenge
        # DNS rebinding: a foreign page may make the browser send requests here under its own host name
        if not self.logins and _host(environ) not in _LOOPBACK_NAMES:
            return (
                "403 Forbidden",
                "without a login, only http://127.0.0.1 and http://localhost are served",
                [],
            )
        if environ["REQUEST_METHOD"] in _SAFE_METHODS:
            return None
        if not self.edits:
            return "403 Forbidden", "read-only: to allow changes, start it with: tlopt dashboard --edit", []
        if environ.get("HTTP_SEC_FETCH_SITE", "") not in _SAME_SITE:
            return "403 Forbidden", "changes are accepted only from the dashboard's own pages", []
        if not _size(environ) <= _BODY_BYTES_MAX:
            return "413 Content Too Large", f"a request may have at most {_BODY_BYTES_MAX} bytes", []
        return None

    def _is_login(self, header: str) -> bool:
        kind, _, encoded = header.partition(" ")
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return False
        # compare for unknown users, too: response times must not reveal which users exist
        known = self.logins.get(user, secrets.token_hex())
        return kind.lower() == "basic" and hmac.compare_digest(_digest(password), _digest(known))


def read_logins(path: Path) -> dict[str, str]:
    """Passwords by user, from lines `user:password`; empty lines and lines that start with # are skipped.

    Raises:
        SpecError: the file cannot be read, has no login or an invalid line; never shows a password.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: the logins cannot be read: {error}") from error
    logins = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        user, colon, password = line.partition(":")
        if not (user and colon) or len(password) < PASSWORD_CHARACTERS_MIN:
            raise SpecError(
                f"{path}: line {number} is not user:password with a password of at"
                f" least {PASSWORD_CHARACTERS_MIN} characters"
            )
        logins[user] = password
    if not logins:
        raise SpecError(f"{path}: contains no login; add a line user:password")
    return logins


def check_host(host: str, logins: Mapping[str, str]) -> None:
    """Raise if other machines can reach `host` without a login.

    Raises:
        SpecError: `host` is not a loopback address, and there are no logins.
    """
    if logins or is_loopback(host):
        return
    raise SpecError(
        f"--host {host}: other machines can reach this address, and there is no login; give a file with lines"
        " user:password by --login-file or TLOPT_DASHBOARD_LOGIN_FILE, or leave out --host"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _host(environ: Environ) -> str:
    """The request's host without its port, with the brackets of IPv6."""
    host = str(environ.get("HTTP_HOST", ""))
    return host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host


def _size(environ: Environ) -> float:
    try:
        return int(environ.get("CONTENT_LENGTH") or 0)
    except ValueError:
        return float("nan")


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _hardened(environ: Environ, start_response: StartResponse) -> StartResponse:
    """`start_response` with security headers added.

    Artifacts are arbitrary uploads: a page among them must not run as part of the dashboard.
    """
    sandbox = [("Content-Security-Policy", "sandbox; default-src 'none'; img-src 'self'")]

    def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
        kept = [(name, value) for name, value in headers if name.lower() not in _DROPPED_HEADERS]
        extra = sandbox if str(environ.get("PATH_INFO", "")).startswith("/artifacts/") else []
        return start_response(status, [*kept, *_HEADERS, *extra], *rest)

    return start
