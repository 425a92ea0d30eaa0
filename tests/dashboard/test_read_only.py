"""A read-only page hides editing controls and says why; other responses are unchanged."""

from typing import Any

from tlopt.dashboard.read_only import NOTICE, ReadOnlyPages

PAGE = b"<html><head><title>x</title></head><body></body></html>"


def answer(path: str, *, method: str = "GET", status: str = "200 OK") -> tuple[dict[str, str], bytes]:
    said: dict[str, str] = {}

    def inner(environ: Any, start_response: Any) -> list[bytes]:
        start_response(status, [("Content-Type", "text/html"), ("Content-Length", str(len(PAGE)))])
        return [PAGE]

    body = ReadOnlyPages(inner)(
        {"PATH_INFO": path, "REQUEST_METHOD": method}, lambda _, headers, *rest: said.update(headers)
    )
    return said, b"".join(body)


def test_a_page_hides_the_buttons_and_says_why() -> None:
    headers, body = answer("/dashboard/studies/3")

    assert NOTICE.encode() in body
    assert b'[aria-label="delete study"]' in body
    assert body.index(b"<style>") < body.index(b"</head>")
    assert headers["Content-Length"] == str(len(body))


def test_other_responses_are_unchanged() -> None:
    assert answer("/static/bundle.js")[1] == PAGE
    assert answer("/dashboard", status="404 Not Found")[1] == PAGE
    assert answer("/dashboard", method="POST")[1] == PAGE
