"""Responses of the dashboard are compressed, cached and thinned; the applications are planted."""

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from tlopt.dashboard import thinning
from tlopt.dashboard.answer_cache import CACHED_SECONDS_MAX, ResponseCache
from tlopt.dashboard.compression import Compressed
from tlopt.dashboard.thinning import ThinnedCurves

TEXT = b'{"trials": [' + b"0.25, " * 5000 + b"1]}"
JSON = ("Content-Type", "application/json")
STUDY = "/api/studies/1"


def ask(application: Any, path: str = STUDY, *, method: str = "GET", **more: str) -> Any:
    """Status, headers by lower-case name, and the whole body."""
    said: list[Any] = []
    environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "HTTP_ACCEPT_ENCODING": "gzip, br", **more}
    body = application(environ, lambda status, headers, *_: said.append((status, headers)))
    pieces = b"".join(body)
    if hasattr(body, "close"):
        body.close()
    ((status, headers),) = said
    return status, {name.lower(): value for name, value in headers}, pieces


def answering(
    *headers: tuple[str, str], status: str = "200 OK", body: Iterable[bytes] = (TEXT,)
) -> Callable[..., Any]:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response(status, list(headers))
        return body

    return application


# Compressed


def test_text_is_compressed_to_a_tenth_without_loss() -> None:
    _, headers, body = ask(Compressed(answering(JSON, ("Content-Length", str(len(TEXT))))))

    assert gzip.decompress(body) == TEXT
    assert len(body) < len(TEXT) / 10
    assert (headers["content-encoding"], headers["vary"]) == ("gzip", "Accept-Encoding")
    assert "content-length" not in headers


@pytest.mark.parametrize("accepts", ["", "br", "identity", "gzip;q=0", "gzip; q=0.0, br", "xgzip"])
def test_clients_that_do_not_accept_gzip_get_plain_text(accepts: str) -> None:
    _, headers, body = ask(Compressed(answering(JSON)), HTTP_ACCEPT_ENCODING=accepts)

    assert (body, "content-encoding" in headers) == (TEXT, False)


@pytest.mark.parametrize("accepts", ["gzip", "br, GZIP", "gzip;q=0.5", "deflate,gzip; q=1.0"])
def test_clients_that_accept_gzip_get_it(accepts: str) -> None:
    assert ask(Compressed(answering(JSON)), HTTP_ACCEPT_ENCODING=accepts)[1]["content-encoding"] == "gzip"


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        ("200 OK", [("Content-Type", "image/png")]),
        ("200 OK", [("Content-Type", "application/octet-stream")]),
        ("200 OK", []),
        ("200 OK", [("Content-Type", "text/css"), ("Content-Encoding", "gzip")]),
        ("200 OK", [JSON, ("Content-Length", "12")]),
        ("206 Partial Content", [JSON]),
        ("404 Not Found", [JSON]),
    ],
)
def test_short_compressed_and_partial_responses_are_not_compressed(
    status: str, headers: list[tuple[str, str]]
) -> None:
    found, kept, body = ask(Compressed(answering(*headers, status=status)))

    assert (found, body) == (status, TEXT)
    assert kept == {name.lower(): value for name, value in headers}


def test_compression_streams_and_closes_its_source() -> None:
    taken: list[str] = []

    def source() -> Iterator[bytes]:
        try:
            for index in range(3):
                taken.append(f"piece {index}")
                yield bytes(range(256)) * 4000
        finally:
            taken.append("closed")

    stream = Compressed(answering(("Content-Type", "text/csv"), body=source()))(
        {"REQUEST_METHOD": "GET", "HTTP_ACCEPT_ENCODING": "gzip"}, lambda *_: None
    )
    assert taken == []
    iterator = iter(stream)
    next(iterator)
    assert taken == ["piece 0"]
    iterator.close()  # type: ignore[attr-defined]
    assert taken == ["piece 0", "closed"]


# ResponseCache


class Counting:
    """An application that counts its requests and takes `seconds` for each."""

    def __init__(self) -> None:
        self.n, self.now, self.seconds, self.status = 0, 0.0, 0.5, "200 OK"

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        self.n += 1
        self.now += self.seconds
        start_response(self.status, [JSON])
        return [f"{environ['PATH_INFO']} {self.n}".encode()]


@pytest.fixture
def inner() -> Counting:
    return Counting()


@pytest.fixture
def cache(inner: Counting) -> ResponseCache:
    return ResponseCache(inner, clock=lambda: inner.now)


def test_a_response_is_cached_ten_times_as_long_as_it_took(inner: Counting, cache: ResponseCache) -> None:
    first = ask(cache)
    inner.now += 4.9
    second = ask(cache)
    inner.now += 0.2
    third = ask(cache)

    assert [body for _, _, body in (first, second, third)] == [b"/api/studies/1 1"] * 2 + [
        b"/api/studies/1 2"
    ]
    assert first[1] == second[1] == {"content-type": "application/json"}


def test_a_response_is_cached_for_ten_seconds_at_most(inner: Counting, cache: ResponseCache) -> None:
    inner.seconds = 60.0
    ask(cache)
    inner.now += CACHED_SECONDS_MAX - 0.1
    ask(cache)
    assert inner.n == 1
    inner.now += 0.2
    ask(cache)
    assert inner.n == 2


@pytest.mark.parametrize(
    "other",
    [
        {"path": "/api/studies/2"},
        {"QUERY_STRING": "after=7"},
        {"HTTP_ACCEPT_ENCODING": ""},
    ],
)
def test_another_request_has_its_own_response(
    inner: Counting, cache: ResponseCache, other: dict[str, str]
) -> None:
    ask(cache)
    ask(cache, **other)

    assert inner.n == 2


@pytest.mark.parametrize("path", ["/artifacts/1/x", "/api/studies", "/static/bundle.js", "/csv/1"])
def test_other_paths_are_not_cached(inner: Counting, cache: ResponseCache, path: str) -> None:
    ask(cache, path)
    ask(cache, path)

    assert inner.n == 2


def test_a_change_clears_the_cache(inner: Counting, cache: ResponseCache) -> None:
    ask(cache)
    ask(cache, f"{STUDY}/note", method="PUT")

    assert ask(cache)[2] == b"/api/studies/1 3"


def test_a_response_computed_before_a_change_is_not_cached_after_it(
    inner: Counting, cache: ResponseCache
) -> None:
    def late(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "GET" and not inner.n:
            ask(cache, f"{STUDY}/note", method="PUT")
        return inner(environ, start_response)

    cache.inner = late
    ask(cache)

    assert ask(cache)[2] == b"/api/studies/1 3"


def test_an_error_is_not_cached(inner: Counting, cache: ResponseCache) -> None:
    inner.status = "500 Internal Server Error"
    assert ask(cache)[0] == inner.status
    inner.status = "200 OK"

    assert ask(cache)[::2] == ("200 OK", b"/api/studies/1 2")


def test_expired_responses_are_evicted(inner: Counting, cache: ResponseCache) -> None:
    for after in range(50):
        ask(cache, QUERY_STRING=f"after={after}")
        inner.now += 10

    assert len(cache._responses) <= 1
    assert len(cache._locks) <= 1


def test_the_oldest_responses_are_evicted_beyond_the_bound(
    inner: Counting, cache: ResponseCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlopt.dashboard.answer_cache.BYTES_MAX", 40)  # two answers of 16 bytes
    for after in range(3):
        ask(cache, QUERY_STRING=f"after={after}")

    assert [key[1] for key in cache._responses] == ["after=1", "after=2"]


def test_concurrent_requests_share_one_response() -> None:
    n = 0

    def slow(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        nonlocal n
        n += 1
        time.sleep(0.3)
        start_response("200 OK", [JSON])
        return [TEXT]

    cache, bodies = ResponseCache(slow), []
    threads = [threading.Thread(target=lambda: bodies.append(ask(cache)[2])) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (n, bodies) == (1, [TEXT] * 6)


def test_waiting_requests_continue_after_an_error(inner: Counting, cache: ResponseCache) -> None:
    def broken(*_: Any) -> Iterable[bytes]:
        raise RuntimeError("no database")

    cache.inner = broken
    with pytest.raises(RuntimeError, match="no database"):
        ask(cache)
    cache.inner = inner

    assert ask(cache)[0] == "200 OK"


# ThinnedCurves


def detail(n: int, *, direction: str = "maximize", **states: str) -> bytes:
    """The response for a study whose trial i has the value i; complete unless `states` says otherwise."""
    trials = [
        {
            "number": number,
            "state": states.get(f"t{number}", "Complete"),
            "values": [float(number)],
            "intermediate_values": [{"step": 0, "value": 0.5}],
        }
        for number in range(n)
    ]
    return json.dumps({"directions": [direction], "trials": trials, "note": {"body": "ö"}}).encode()


def drawn(body: bytes) -> list[int]:
    return [trial["number"] for trial in json.loads(body)["trials"] if trial["intermediate_values"]]


@pytest.fixture
def _five(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thinning, "CURVES_MAX", 5)
    monkeypatch.setattr(thinning, "_CURVES_BEST", 2)


@pytest.mark.usefixtures("_five")
def test_a_response_with_few_curves_is_unchanged() -> None:
    assert thinning.thinned(detail(5)) == detail(5)


@pytest.mark.usefixtures("_five")
def test_of_many_curves_the_newest_the_best_and_the_running_remain() -> None:
    found = thinning.thinned(detail(20, direction="minimize", t9="Running", t0="Pruned"))

    assert drawn(found) == [1, 2, 9, 17, 18, 19]


@pytest.mark.usefixtures("_five")
def test_only_curves_are_omitted() -> None:
    before, after = (json.loads(body) for body in (detail(20), thinning.thinned(detail(20))))
    for study in (before, after):
        for trial in study["trials"]:
            del trial["intermediate_values"]

    assert after == before


@pytest.mark.usefixtures("_five")
def test_trials_without_a_numeric_value_are_not_the_best() -> None:
    study = json.loads(detail(9))
    study["trials"][0]["values"] = ["inf"]
    del study["trials"][1]["values"]

    assert drawn(thinning.thinned(json.dumps(study).encode())) == [6, 7, 8]


@pytest.mark.usefixtures("_five")
@pytest.mark.parametrize(
    ("path", "status", "n"),
    [(STUDY, "200 OK", 3), (STUDY, "404 Not Found", 9), (f"{STUDY}/note", "200 OK", 9), ("/x", "200 OK", 9)],
)
def test_only_responses_for_a_study_are_thinned(path: str, status: str, n: int) -> None:
    _, headers, body = ask(ThinnedCurves(answering(JSON, status=status, body=[detail(9)])), path)

    assert len(drawn(body)) == n
    assert headers.get("content-length", str(len(body))) == str(len(body))
