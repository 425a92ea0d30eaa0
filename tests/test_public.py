"""The names that `import tlopt` exports, and the output of its functions."""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tlopt
from tlopt import api, spec
from tlopt.analysis.snapshot import Snapshot, Stage
from tlopt.app import arguments, workflow
from tlopt.app.grids import curves as grids
from tlopt.errors import SpecError
from tlopt.propose import proposal
from tlopt.propose.proposal import Proposal, ProposalRequest
from tlopt.storage.commands import Command
from tlopt.training import timing


def test_all_is_exact_sorted_and_exists() -> None:
    assert tlopt.__all__ == sorted(["TloptError", "__version__", *api.__all__])
    assert api.__all__ == sorted(api.__all__)
    assert [name for name in tlopt.__all__ if not hasattr(tlopt, name)] == []


@pytest.mark.parametrize("name", api.__all__)
def test_each_argument_of_a_public_function_has_a_type_that_is_checked(name: str) -> None:
    parameters = inspect.signature(getattr(tlopt, name)).parameters
    assert set(parameters) <= set(arguments.KINDS)
    first = next(iter(parameters))
    for wrong in (5.5, b"x", None):
        with pytest.raises(TypeError, match=rf"^tlopt\.{name}: {first} is a str or a Path, not "):
            getattr(tlopt, name)(wrong, *["x"] * (name in ("export", "train", "predict")))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: tlopt.run("x.toml", storage=Path("t.db")),
            "storage is a database's URL as a str, not PosixPath",
        ),
        (lambda: tlopt.run("x.toml", n_workers=True), "n_workers is a whole number, not bool"),
        (lambda: tlopt.run("x.toml", n_workers=2.0), "n_workers is a whole number, not float"),
        (
            lambda: tlopt.run("x.toml", on_snapshot=5),
            "on_snapshot is a function of a snapshot",
        ),
        (
            lambda: tlopt.predict("x", "photo.jpg"),
            "images is a list of paths, not str",
        ),
        (lambda: tlopt.predict("x", [5]), "images is a list of paths, not of int"),
        (lambda: tlopt.load_model("x", device=None), "device is a str, not NoneType"),
        (lambda: tlopt.init("x", data=["a"]), "data is a dict of keys and values of .data., not list"),
    ],
)
def test_an_argument_of_another_type_is_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call()


def test_a_negative_number_of_workers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"n_workers is 0 \(as many as suit this machine\) or more, not -1"):
        tlopt.run("x.toml", n_workers=-1)


GRID = '[sampler]\nkind = "grid"\nrepeats = 2\n'
FIXED = "lr = 0.01\nfreeze_depth = 0.5"


def test_a_search_and_a_grid_have_a_function_each(
    study_text: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "prepare", lambda *_, **__: pytest.fail("images are read"))
    url = f"sqlite:///{tmp_path}/tlopt.db"
    for name, tables in (("search", ""), ("grid", GRID)):
        (tmp_path / f"{name}.toml").write_text(study_text(name=name, search=FIXED, tables=tables))

    with pytest.raises(
        SpecError, match=r"grid is a grid: run it with tlopt\.run_grid, .* then tlopt\.confirm"
    ):
        tlopt.run(tmp_path / "grid.toml", storage=url)
    with pytest.raises(SpecError, match=r"search is a search, not a grid: run it with tlopt\.run$"):
        tlopt.run_grid(tmp_path / "search.toml", storage=url)


def test_a_grid_is_run_and_not_confirmed(
    study_text: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "grid.toml").write_text(study_text(name="grid", search=FIXED, tables=GRID))
    steps: list[str] = []
    monkeypatch.setattr(workflow, "prepare", lambda *_, **__: steps.append("prepare"))
    monkeypatch.setattr(workflow, "search", lambda *_, **__: steps.append("search") or [])
    monkeypatch.setattr(workflow, "confirm", lambda *_, **__: pytest.fail("it is confirmed"))
    monkeypatch.setattr(grids, "read_curves", lambda _session, over: f"curves over {over}")

    found: object = tlopt.run_grid(
        tmp_path / "grid.toml", over="epoch", storage=f"sqlite:///{tmp_path}/tlopt.db"
    )

    assert steps == ["prepare", "search"]
    assert found == "curves over epoch"


def test_numbers_of_numpy_are_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposal, "propose", lambda _source, request, _here: request)
    monkeypatch.setattr(timing, "detect_machine", lambda: None)

    assert tlopt.init("x", trials=np.int64(9), minutes=np.float32(5)) == ProposalRequest(trials=9, minutes=5)


def test_init_proposes_what_was_wished_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, ProposalRequest]] = []

    def proposed(source: str, request: ProposalRequest, here: object) -> Proposal:
        asked.append((source, request))
        return Proposal(text="text", notes=(), minutes=1.0)

    monkeypatch.setattr(proposal, "propose", proposed)
    monkeypatch.setattr(timing, "detect_machine", lambda: None)

    assert tlopt.init(tmp_path, trials=9, minutes=5, skip_unreadable=True).text == "text"
    assert asked == [(str(tmp_path), ProposalRequest(trials=9, minutes=5, skip_unreadable=True))]


def test_check_tells_what_a_study_would_do(study_text: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(study_text(name="looked-at"))

    lines = tlopt.check(tmp_path / "x.toml", storage=f"sqlite:///{tmp_path}/tlopt.db")

    assert lines[0].startswith("looked-at  digest ")
    assert any("resnet18, 9 blocks" in line for line in lines)


def test_check_tells_of_skipped_files_once(study_text: Callable[..., str], tmp_path: Path) -> None:
    for name, colour in (("a", "red"), ("b", "blue")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for side in range(8, 18):
            Image.new("RGB", (side, 8), colour).save(tmp_path / "images" / name / f"{side}.png")
    (tmp_path / "images" / "a" / "broken.png").write_bytes(b"no image")
    text = study_text(source=tmp_path / "images").replace("[data]", '[data]\nunreadable = "skip"')
    (tmp_path / "x.toml").write_text(text)

    lines = tlopt.check(tmp_path / "x.toml", storage=f"sqlite:///{tmp_path}/tlopt.db")

    assert sum("broken.png" in line for line in lines) == 1


@pytest.mark.parametrize("step", [tlopt.run, tlopt.confirm])
@pytest.mark.parametrize("progress", [True, False])
def test_progress_is_shown_where_it_is_asked_for(
    step: Callable[..., object],
    progress: bool,
    study_text: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "x.toml").write_text(study_text())
    study = spec.load(tmp_path / "x.toml")

    def planted(stage: Stage) -> Callable[..., Iterator[Snapshot]]:
        return lambda session, workspace, *, n_workers: iter(
            [Snapshot(study=study, command=Command(), trials=(), workers=(), stage=stage)]
        )

    monkeypatch.setattr(workflow, "prepare", lambda session, *, progress: None)
    monkeypatch.setattr(workflow, "search", planted("search"))
    monkeypatch.setattr(workflow, "confirm", planted("confirm"))
    monkeypatch.setattr(workflow, "judge", lambda session, workspace: None)
    step(tmp_path / "x.toml", storage=f"sqlite:///{tmp_path}/tlopt.db", progress=progress)

    assert ("confirm: 0/13 runs" in capsys.readouterr().out) is progress


def test_no_room_hides_a_public_function() -> None:
    """Importing `tlopt.x` binds the module to the name x of the package."""
    rooms = {path.stem for path in Path(tlopt.__file__).parent.iterdir()}

    assert rooms.isdisjoint(set(tlopt.__all__) - {"errors"})
