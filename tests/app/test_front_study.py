"""A study with several objectives from its file to an export of each confirmed point of the front."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch
from rich.console import Console

from tlopt.api import open_study
from tlopt.app import deliver, workflow
from tlopt.app.handle import Session, open_session
from tlopt.app.tables import show_verdict, status_group
from tlopt.dashboard.note import note_lines
from tlopt.errors import DataError
from tlopt.spec.folders import Folders
from tlopt.storage.studies import service_of
from tlopt.worker import loop
from tlopt.worker.claim import StudyWork
from tlopt.worker.shutdown import Interrupt

SEARCH = "resolution = { choice = [32, 64] }\nlr = { log = [1e-3, 1e-2] }"


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def session(tmp_path: Path, study_text: Callable[..., str]) -> Session:
    text = tiny.lighter(study_text(name="front", trials=6), head='objectives = ["accuracy", "multiply_adds"]')
    before, _, _ = text.partition("[search]")
    file = tmp_path / "front.toml"
    file.write_text(f"{before}[search]\n{SEARCH}\n[confirm]\npoints = 3\nseeds = 3\n")
    return open_session(file, storage_url=f"sqlite:///{tmp_path}/studies.db", runs=tmp_path / "runs")


def train(session: Session, opened: object, plan: object, workspace: object, folders: Folders) -> int:
    """What one worker does with a search or a confirmation, in this process."""
    work = StudyWork(
        optuna_study=opened,
        plan=plan,
        workspace=workspace,
        folders=folders,
        service=session.study.service,
        checkpoints=None,
    )
    return loop.run_worker([work], service_of(session.store), Interrupt())


def said(session: Session) -> str:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(status_group(session.snapshot(), top=5))
    return console.export_text()


def test_exports_of_the_front_lie_beside_that_of_the_chosen_point_not_in_it(session: Session) -> None:
    """An export with more in it is no longer replaced, so that `run` would end with an error."""
    assert deliver.default_folder(session) not in deliver.front_folder(session).parents


@pytest.mark.slow
def test_the_front_is_searched_shown_confirmed_and_exported(session: Session, tmp_path: Path) -> None:
    workspace = workflow.prepare(session)
    assert train(session, *workflow.begin(session, workspace, n_threads=1), workspace, session.folders) == 6

    status = said(session)
    assert "front by validation accuracy" in status
    assert "multiply-adds" in status
    assert "hypervolume" in status
    front = open_study(session.target, storage=session.url).front()
    assert front
    assert {row.number for row in front} == {t.number for t in session.optuna_study().best_trials}
    figures = deliver.figures(session)["front"]
    assert len(figures) == 1
    assert "Accuracy against cost" in deliver.report_html(session)

    opened, plan = workflow.begin_confirm(session, workspace)
    candidates = plan.n_open(opened)
    assert train(session, opened, plan, workspace, session.confirm_folders) == candidates
    verdict = workflow.judge(session, workspace)

    points = [row for row in verdict.rows if not row.is_default]
    assert 1 <= len(points) <= 3
    assert candidates == 3 * len(verdict.rows)  # no point is dropped between seeds
    assert verdict.finished
    assert verdict.front
    console = Console(width=120, record=True, file=io.StringIO())
    show_verdict(verdict, console)
    assert "The front of the confirmed points: " in console.export_text()

    written = deliver.export_front(
        session, workspace, verdict, tmp_path / "exports", overwrite=False, onnx=False
    )

    assert [folder.name for folder in written] == [row.label.replace(" ", "-") for row in verdict.front]
    with pytest.raises(DataError, match="is itself an export"):
        deliver.export_front(session, workspace, verdict, written[0], overwrite=True, onnx=False)
    for folder, row in zip(written, verdict.front, strict=True):
        result = json.loads((folder / "result.json").read_text())
        assert result["label"] == row.label
        assert result["network"]["multiply_adds"] == row.inference_cost["multiply_adds"]
        assert result["verdict"]["front"] == [each.label for each in verdict.front]
    assert "front of accuracy" in "\n".join(
        note_lines(session.study, session.snapshot().trials, images="images", verdict=(), picture="")
    ).replace("\\", "")
