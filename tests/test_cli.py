"""The command line: one-line errors with an exit status, and no torch where it is not needed."""

import errno
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import pytest
import tiny
from typer.testing import CliRunner

from tlopt import api, spec
from tlopt.app import workflow
from tlopt.app.handle import Session
from tlopt.cli import main
from tlopt.cli.main import app
from tlopt.doctor import study as doctor_study
from tlopt.errors import NotReady, SpecError
from tlopt.propose import proposal as propose_module
from tlopt.propose.proposal import Proposal, ProposalRequest
from tlopt.storage import studies

ROOT = Path(main.__file__).parents[2]


def tlopt(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tlopt", *arguments], cwd=folder, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["check", "absent.toml"], 1, "error: absent.toml: there is no such study file"),
        (["status", "absent"], 1, "error: there is no database"),
        (["predict", ".", "x.png"], 1, "error: . is not an export"),
        (["run"], 2, "Missing argument"),
        (["trane"], 2, "No such command"),
    ],
)
def test_an_error_is_a_line_and_a_status(
    arguments: list[str], status: int, said: str, tmp_path: Path
) -> None:
    ended = tlopt(*arguments, folder=tmp_path)
    assert (ended.returncode, ended.stdout) == (status, "")
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOSPC, errno.EFBIG, errno.EMFILE])
def test_a_disk_error_without_a_file_is_a_line_and_a_status(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise OSError(number, "No usable temporary directory found")

    monkeypatch.setattr(main, "app", fail)
    monkeypatch.setattr(main.logging, "disable", lambda _: None)  # of the whole process

    with pytest.raises(SystemExit, match="1"):
        main.main()

    assert capsys.readouterr().err == "error: No usable temporary directory found\n"


def test_the_version_is_that_of_the_package(tmp_path: Path) -> None:
    ended = tlopt("--version", folder=tmp_path)

    assert (ended.returncode, ended.stdout) == (0, f"tlopt {version('tlopt')}\n")


def test_a_worker_hears_a_signal_before_anything_slow_is_loaded(tmp_path: Path) -> None:
    code = "import sys, tlopt.__main__; print(sorted({'importlib.metadata', 'typer'} & {*sys.modules}))"

    ended = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True)

    assert ended.stdout == "[]\n", ended.stderr


def test_shells_can_complete_commands() -> None:
    assert "--install-completion" in CliRunner().invoke(app, ["--help"], env={"COLUMNS": "120"}).output


def test_a_run_that_is_stopped_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["tlopt", "run", "my flowers.toml", "--workers", "2"])
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit, match="143"), main._stoppable():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)

    assert capsys.readouterr().err.splitlines()[-1] == "  tlopt run 'my flowers.toml' --workers 2"


READING = (
    ["status"],
    ["status", "flowers.toml"],
    ["status", "flowers.toml", "--json"],
    ["report", "flowers.toml"],
    ["export", "flowers.toml"],
    ["export", "flowers.toml", "--config"],
    ["export", "flowers.toml", "--all", "trials.csv"],
    ["confirm", "flowers.toml"],
    ["pause", "flowers.toml"],
    ["resume", "flowers.toml"],
    ["cancel", "flowers.toml"],
    ["archive", "flowers.toml"],
    ["delete", "flowers.toml", "--yes"],
    ["upgrade"],
    ["upgrade", "flowers"],
    ["doctor", "flowers.toml"],
    ["check", "flowers.toml"],
)


@pytest.mark.parametrize("arguments", READING, ids=" ".join)
@pytest.mark.parametrize("there", [False, True])
def test_looking_for_a_study_makes_no_database(
    arguments: list[str], there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor_study, "study", lambda *_, **__: iter(()))  # images and weights
    monkeypatch.setattr(workflow, "prepare", stop)
    file = tmp_path / "flowers.toml"
    file.write_text(tiny.text("lr = { log = [1e-4, 1e-1] }"))
    if there:
        (tmp_path / "tlopt.db").touch()  # as an editor or a mount leaves it

    ended = CliRunner().invoke(app, arguments)

    assert ended.exception is None or isinstance(ended.exception, (NotReady, Stopped, SystemExit))
    left = {each.name for each in tmp_path.iterdir()}
    assert left == ({"flowers.toml", "tlopt.db"} if there else {"flowers.toml"})
    assert not there or (tmp_path / "tlopt.db").read_bytes() == b""


class Stopped(Exception):
    """Enough was seen."""


def stop(session: Session, **_: object) -> None:
    """In the place of `prepare`, with what it asks the database."""
    with suppress(NotReady):
        session.optuna_study()
    raise Stopped


def test_functions_that_read_make_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("flowers.toml").write_text(tiny.text("lr = { log = [1e-4, 1e-1] }"))

    for read in (api.open_study, api.trials, api.report):
        with pytest.raises(NotReady, match=r"flowers\.toml has not been started .* tlopt run flowers\.toml"):
            read("flowers.toml")
    assert [each.name for each in tmp_path.iterdir()] == ["flowers.toml"]


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["status"], ["export", "s", "--config"], ["report", "s"]]
)
def test_answers_that_need_no_network_load_no_torch(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys\nfrom tlopt.cli import main as cli\n"
        f"sys.argv = {['tlopt', *arguments]!r}\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, timeout=120)
    assert ended.returncode == 0


def test_init_writes_the_proposal_and_never_over_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, study_text: Callable[..., str]
) -> None:
    asked: list[ProposalRequest] = []

    def propose(source: str, request: ProposalRequest, machine: object, *, progress: bool) -> Proposal:
        asked.append(request)
        return Proposal(text=study_text(name="mine"), notes=("said [so]",), minutes=3.0)

    monkeypatch.setattr(propose_module, "propose", propose)
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(app, ["init", "photos", "--trials", "9", "--skip-unreadable"])
    assert shown.exit_code == 0, shown.exception
    assert "said [so]" in shown.output
    assert asked[0] == ProposalRequest(trials=9, skip_unreadable=True)
    assert spec.load("mine.toml").name == "mine"
    again = CliRunner().invoke(app, ["init", "photos"])
    assert isinstance(again.exception, SpecError)
    assert "mine.toml exists" in str(again.exception)
    spaced = CliRunner().invoke(app, ["init", "photos", "--output", "my own.toml"])
    assert "wrote my own.toml; next: tlopt check 'my own.toml', then tlopt run 'my own.toml'" in spaced.output


def test_blocks_lists_a_backbone_from_the_input_on() -> None:
    shown = CliRunner().invoke(app, ["blocks", "resnet18"])
    assert shown.exit_code == 0
    assert "9 blocks" in shown.output
    assert shown.output.index("layer1.0") < shown.output.index("layer4.1")


def test_blocks_without_a_name_lists_all_backbones() -> None:
    shown = CliRunner().invoke(app, ["blocks"])
    assert "resnet50" in shown.output
    assert "vit_b_16" in shown.output


def test_nothing_shown_is_wider_than_eighty_columns() -> None:
    for arguments in (["blocks", "efficientnet_b0"], ["blocks"], ["--help"], ["run", "--help"]):
        shown = CliRunner().invoke(app, arguments, env={"COLUMNS": "80"})
        assert max(map(len, shown.output.splitlines())) <= 80, arguments


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database with the study "planted", which has no trial yet."""
    url, text = f"sqlite:///{tmp_path}/studies.db", tiny.text("lr = { log = [1e-4, 1e-1] }")
    studies.create_or_open(
        studies.open_storage(url), spec.loads(text, "x.toml"), file_text=text, fingerprints={}
    )
    return url


def test_a_report_to_standard_output_is_the_page_alone(url: str) -> None:
    shown = CliRunner().invoke(app, ["report", "planted", "-", "--storage", url])

    assert shown.output.startswith("<!DOCTYPE html>")
    assert shown.output.rstrip().endswith("</html>")


def test_paragraphs_of_help_fill_the_terminal() -> None:
    shown = CliRunner().invoke(app, ["next", "--help"], env={"COLUMNS": "80"})

    assert "a comment above the key" in shown.output, "no break where the docstring has one"
    assert any(line.strip() == "" for line in shown.output.splitlines()[5:9]), "paragraphs stay apart"


@pytest.mark.parametrize("folder", ["runs", "runs/photos"])
def test_a_file_in_the_place_of_a_folder_is_named_with_the_cure(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").write_text("")
    monkeypatch.setattr(main, "app", lambda: (tmp_path / folder).mkdir(exist_ok=True))

    with pytest.raises(SystemExit) as ended:
        main.main()

    assert ended.value.code == 1
    said = " ".join(capsys.readouterr().err.split())
    assert said.endswith("is a file where a folder is needed: move it or choose another place")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_disk_that_takes_nothing_is_a_line_and_a_status(url: str, tmp_path: Path) -> None:
    ended = tlopt("report", "planted", "/dev/full", "--overwrite", "--storage", url, folder=tmp_path)

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "error: No space left on device\n"
