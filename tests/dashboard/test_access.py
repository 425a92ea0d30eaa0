"""Access control of the dashboard: read-only mode, logins, and requests from other pages."""

import base64
import gzip
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import waitress
from typer.testing import CliRunner

from tlopt.cli.main import app
from tlopt.dashboard import server as dashboard_server
from tlopt.dashboard.access import check_host, is_loopback, read_logins
from tlopt.errors import SpecError

LOGINS = {"ada": "correct horse:battery", "bob": "another password"}
SECRET_PAGE = b"<script>alert(1)</script>"


@dataclass(frozen=True)
class Answer:
    """The response of the dashboard."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Served:
    """A dashboard that serves on localhost, and its study."""

    port: int
    study: optuna.Study
    folder: Path

    def ask(self, method: str, path: str, body: str = "", **headers: str) -> Answer:
        """Header names are written with _ for -."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, {"Connection": "close", **given})
        response = connection.getresponse()
        answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        connection.close()
        return answer

    @property
    def path(self) -> str:
        return f"/api/studies/{self.study._study_id}"


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Served]]:
    """A dashboard for a database with one study, shared by calls with equal arguments."""
    running: dict[str, tuple[Served, Any, threading.Thread]] = {}

    def start(*, edits: bool = False, logins: dict[str, str] | None = None) -> Served:
        key = f"{edits}{sorted(logins or {})}"
        if key not in running:
            folder = tmp_path_factory.mktemp("dashboard")
            url = f"sqlite:///{folder}/studies.db"
            application = dashboard_server.application(url, folder / "runs", edits=edits, logins=logins or {})
            study = optuna.create_study(storage=url, study_name="flowers")
            server = waitress.create_server(application, host="127.0.0.1", port=0, threads=2, ident=None)
            thread = threading.Thread(target=server.run)
            thread.start()
            running[key] = Served(port=server.effective_port, study=study, folder=folder), server, thread
        return running[key][0]

    yield start
    for _, server, thread in running.values():
        server.task_dispatcher.shutdown()
        for channel in list(server._map.values()):
            channel.close()
        server.close()
        thread.join(10)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def upload(served: Served) -> str:
    """Upload a page as an artifact of the study and return its path."""
    page = served.folder / "page.html"
    page.write_bytes(SECRET_PAGE)
    store = optuna.artifacts.FileSystemArtifactStore(served.folder / "runs" / "artifacts")
    artifact = optuna.artifacts.upload_artifact(
        artifact_store=store, file_path=str(page), study_or_trial=served.study, mimetype="text/html"
    )
    return f"/artifacts/{served.study._study_id}/{artifact}"


CHANGES = [
    ("DELETE", "", ""),
    ("PUT", "/note", json.dumps({"body": "mine", "version": 1})),
    ("POST", "/rename", json.dumps({"study_name": "mine"})),
]


def test_read_only_shows_everything(serve: Callable[..., Served]) -> None:
    served = serve()

    assert served.ask("GET", "/dashboard").status == 200
    assert served.ask("GET", f"{served.path}?after=0").status == 200
    names = [
        row["study_name"] for row in json.loads(served.ask("GET", "/api/studies").body)["study_summaries"]
    ]
    assert names == ["flowers"]


def test_pages_are_compressed_behind_access_control(serve: Callable[..., Served]) -> None:
    plain, packed = (serve().ask("GET", "/dashboard", Accept_Encoding=name) for name in ("identity", "gzip"))

    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body
    assert packed.headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
def test_read_only_changes_nothing(serve: Callable[..., Served], method: str, path: str, body: str) -> None:
    served = serve()

    answer = served.ask(method, served.path + path, body, Content_Type="application/json")

    assert (answer.status, b"--edit" in answer.body) == (403, True)
    assert optuna.get_all_study_names(served.study._storage) == ["flowers"]
    assert served.study._storage.get_study_system_attrs(served.study._study_id) == {}


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_with_edit_the_dashboards_own_page_can_delete_a_study(serve: Callable[..., Served]) -> None:
    served = serve(edits=True)

    foreign = [served.ask("DELETE", served.path, Sec_Fetch_Site=site) for site in ("cross-site", "same-site")]
    there = optuna.get_all_study_names(served.study._storage)
    own = served.ask(
        "DELETE", served.path, Sec_Fetch_Site="same-origin", Content_Type="application/json", body="{}"
    )

    assert [answer.status for answer in foreign] == [403, 403]
    assert there == ["flowers"]
    assert own.status < 300
    assert optuna.get_all_study_names(served.study._storage) == []


@pytest.mark.parametrize("length", ["2000000", "many"])
def test_too_large_a_request_is_refused_unread(serve: Callable[..., Served], length: str) -> None:
    application = dashboard_server.AccessControl(lambda *_: [b"passed on"], edits=True, logins={})
    said: list[str] = []
    environ = {"REQUEST_METHOD": "PUT", "HTTP_HOST": "localhost:1", "CONTENT_LENGTH": length}

    body = application(environ, lambda status, headers: said.append(status))

    assert said == ["413 Content Too Large"]
    assert b"passed on" not in b"".join(body)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic",
        "Basic !!!",
        basic("ada", "wrong password"),
        basic("eve", LOGINS["ada"]),
        basic("ada", LOGINS["bob"]),
        basic("", ""),
        "Bearer " + basic("ada", LOGINS["ada"]).split()[1],
        "Basic " + base64.b64encode(b"\xff\xfe:x").decode(),
    ],
)
@pytest.mark.parametrize("path", ["/dashboard", "/api/studies", "/static/x.js", "/"])
def test_without_the_right_password_nothing_is_shown(
    serve: Callable[..., Served], header: str, path: str
) -> None:
    answer = serve(logins=LOGINS).ask("GET", path, Authorization=header)

    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith("Basic")
    assert b"flowers" not in answer.body


@pytest.mark.parametrize("user", LOGINS)
def test_every_login_has_access_under_any_host_name(serve: Callable[..., Served], user: str) -> None:
    served = serve(logins=LOGINS)

    answer = served.ask("GET", "/api/studies", Authorization=basic(user, LOGINS[user]), Host="tlopt.example")

    assert answer.status == 200
    assert b"flowers" in answer.body


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8080", 200),
        ("localhost", 200),
        ("localhost:9", 200),
        ("[::1]:9", 200),
        ("evil.example", 403),
        ("evil.example:8080", 403),
        ("127.0.0.1.evil.example", 403),
        ("", 403),
    ],
)
def test_without_a_login_only_localhost_is_served(
    serve: Callable[..., Served], host: str, status: int
) -> None:
    assert serve().ask("GET", "/api/studies", Host=host).status == status


def test_a_page_among_the_artifacts_is_sandboxed(serve: Callable[..., Served]) -> None:
    served = serve()

    answer = served.ask("GET", upload(served))

    assert (answer.status, answer.body) == (200, SECRET_PAGE)
    assert answer.headers["content-security-policy"].startswith("sandbox")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in answer.headers
    assert "server" not in answer.headers


@pytest.mark.parametrize(
    "path", ["/artifacts/1/../../studies.db", "/artifacts/1/%2e%2e%2fstudies.db", "/static/../app.py"]
)
def test_no_path_leads_out_of_the_folders(serve: Callable[..., Served], path: str) -> None:
    answer = serve().ask("GET", path)

    assert answer.status in (403, 404)


# Options of the command


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "tlopt.example"])
def test_other_addresses_need_a_login(host: str) -> None:
    with pytest.raises(SpecError, match="no login"):
        check_host(host, {})
    check_host(host, LOGINS)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_addresses_need_no_login(host: str) -> None:
    assert is_loopback(host)
    check_host(host, {})


def test_the_command_does_not_listen_elsewhere_without_a_login(tmp_path: Path) -> None:
    arguments = ["dashboard", "--host", "0.0.0.0", "--storage", f"sqlite:///{tmp_path}/x.db"]

    caught = CliRunner().invoke(app, arguments).exception

    assert isinstance(caught, SpecError)
    assert "--login-file" in str(caught)
    assert list(tmp_path.iterdir()) == []


def test_the_command_passes_its_options_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, told = tmp_path / "logins", SimpleNamespace()
    file.write_text("# the team\n\nada:correct horse:battery\nbob:another password\n")
    monkeypatch.setattr(dashboard_server, "serve", lambda url, runs, **rest: vars(told).update(rest))

    arguments = ["dashboard", "--host", "0.0.0.0", "--port", "81", "--storage", f"sqlite:///{tmp_path}/x.db"]
    result = CliRunner().invoke(app, arguments, env={"TLOPT_DASHBOARD_LOGIN_FILE": str(file)})

    assert result.exit_code == 0, result.output
    assert vars(told) == {"host": "0.0.0.0", "port": 81, "edits": False, "logins": LOGINS}
    assert "battery" not in result.output


@pytest.mark.parametrize(
    "text", ["", "# none\n", "ada\n", ":long enough password\n", "ada:short\n", "ada:\n"]
)
def test_the_error_for_an_invalid_login_file_shows_no_passwords(tmp_path: Path, text: str) -> None:
    file = tmp_path / "logins"
    file.write_text(text)

    with pytest.raises(SpecError, match="logins") as caught:
        read_logins(file)
    assert "short" not in str(caught.value)


def test_the_error_for_an_absent_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="absent"):
        read_logins(tmp_path / "absent")
