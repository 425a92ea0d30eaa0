"""From a study file to a verdict: step by step in this process, and in one call with workers."""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest
import tiny
import torch
from optuna.trial import TrialState
from rich.console import Console
from typer.testing import CliRunner

import tlopt
from tlopt.analysis.format import spread_words
from tlopt.app import deliver, serve, tables, workflow
from tlopt.app.compact.combine import export_combined
from tlopt.app.handle import Session, open_session
from tlopt.app.local_run import WorkersFailed
from tlopt.cli.main import app
from tlopt.confirmation import held_out
from tlopt.confirmation.verdict import Verdict
from tlopt.errors import NotReady, SpecError, StudyChanged
from tlopt.exports.combine import Combination
from tlopt.spec.default_names import KEPT_LABEL, PLAIN_LABEL, PROBE_LABEL
from tlopt.storage import attributes
from tlopt.trial.workspace import Workspace
from tlopt.worker.shutdown import Interrupt

CONFIRM = "[confirm]\npoints = 1\nseeds = 3"


@dataclass(frozen=True)
class Finished:
    """A small study that was searched, confirmed and judged in this process."""

    file: Path
    url: str
    session: Session
    workspace: Workspace
    verdict: Verdict


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        tiny.draw_nothing(patch)
        yield


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
    study_text: Callable[..., str],
    workshop: tiny.Workshop,
    cache_folder: Path,
) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    file = folder / "stripes.toml"
    file.write_text(tiny.lighter(study_text(trials=3, epochs=1, tables=CONFIRM)))
    url = f"sqlite:///{folder}/tlopt.db"
    session = open_session(file, storage_url=url, runs=folder / "runs")
    workspace = replace(workshop.workspace, study=session.study)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLOPT_CACHE", str(cache_folder))
        workflow.begin(session, workspace)
        serve.run_studies([(session, workspace)], stage="search", interrupt=Interrupt())
        workflow.begin_confirm(session, workspace)
        serve.run_studies([(session, workspace)], stage="confirm", interrupt=Interrupt())
        verdict = workflow.judge(session, workspace)
    return Finished(file=file, url=url, session=session, workspace=workspace, verdict=verdict)


def test_the_verdict_has_the_best_point_and_the_defaults_over_the_same_seeds(finished: Finished) -> None:
    rows = finished.verdict.rows

    assert {row.label for row in rows} >= {PROBE_LABEL, PLAIN_LABEL, KEPT_LABEL}
    assert all(len(row.val) == 3 for row in rows)
    assert len({row.seeds for row in rows}) == 1


def test_the_test_is_read_once_for_the_chosen_point_and_the_defaults(finished: Finished) -> None:
    verdict = finished.verdict

    assert verdict.test_readings == 1
    assert all(len(row.test) == 3 for row in verdict.rows if row is verdict.chosen or row.is_default)


def test_a_judged_study_is_judged_again_without_reading_the_test(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_out, "test_split", None)

    assert workflow.judge(finished.session, finished.workspace) == finished.verdict


def test_a_finished_study_begins_no_worker(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlopt.worker.local.subprocess.Popen", None)

    (searched,) = workflow.search(finished.session, finished.workspace)
    (confirmed,) = workflow.confirm(finished.session, finished.workspace)

    assert searched.progress == (3, 3)
    assert confirmed.progress == (3 * len(finished.verdict.rows),) * 2


def test_the_trials_of_a_study_are_listed_by_number(finished: Finished) -> None:
    listed = tlopt.trials(finished.file, storage=finished.url)

    assert [trial.number for trial in listed] == [0, 1, 2]
    assert [trial.label for trial in listed[:2]] == [PROBE_LABEL, PLAIN_LABEL]


def test_a_study_shows_itself_in_a_notebook(finished: Finished) -> None:
    study = tlopt.open_study(finished.file, storage=finished.url, runs=finished.session.runs)

    chosen = finished.verdict.chosen.label
    begins = f"<StudyView stripes: 3 of 3 trials; chosen by the confirmation: {chosen}, "
    assert repr(study).startswith(begins)
    assert repr(study).endswith(" % on validation>")
    assert "<table>" in study._repr_html_()
    assert study.verdict == finished.verdict
    assert len(study.to_frame()) == len(study.trials) == len(study.optuna_study.trials)
    assert study.spec.name == "stripes"
    (curves,) = study.figures["curves"]
    assert "<figcaption>Validation after each epoch" in curves._repr_html_()
    assert "var(--" not in curves.standalone


def test_optuna_is_heard_again_after_a_call(finished: Finished) -> None:
    import optuna

    before = optuna.logging.get_verbosity()
    tlopt.trials(finished.file, storage=finished.url)

    assert optuna.logging.get_verbosity() == before


def test_a_study_is_found_by_its_name_in_the_database(finished: Finished) -> None:
    session = open_session("stripes", storage_url=finished.url)

    assert session.study == finished.session.study


def test_the_weights_of_every_run_of_the_confirmation_are_kept(finished: Finished) -> None:
    session = finished.session

    assert all(
        session.weights_file(row.number, replicate).exists()
        for row in finished.verdict.rows
        for replicate in range(3)
    )


def test_the_report_of_a_finished_study_has_its_verdict_and_its_classes(finished: Finished) -> None:
    html = deliver.report_html(finished.session)

    test = finished.verdict.chosen.spread("accuracy", split="test")
    assert spread_words(test, "accuracy") in html
    assert f"Chosen by validation: {finished.verdict.chosen.label}" in html
    assert "blue, green, red" in html
    assert f"{len(finished.workspace.data.splits[0].train)} to train" in html


def commands(text: str) -> list[list[str]]:
    """The arguments of every tlopt command in the text's console blocks and comments, as printed."""
    blocks = re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"^#\s+(tlopt .*)$", text, flags=re.MULTILINE)
    return [shlex.split(line)[1:] for line in lines if line.startswith("tlopt ")]


def test_every_command_that_an_export_prints_runs_in_its_folder(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_folder: Path
) -> None:
    monkeypatch.setenv("TLOPT_CACHE", str(cache_folder))
    folder = deliver.export(
        finished.session, finished.workspace, finished.verdict, tmp_path / "best", overwrite=False, onnx=False
    )
    image = next(Path(finished.session.study.data.source).rglob("*.png"))
    monkeypatch.chdir(folder)
    printed = commands((folder / "README.md").read_text()) + commands((folder / "config.toml").read_text())

    for arguments in printed:
        named = [str(image) if each == "IMAGES" else each for each in arguments]
        more = ["--overwrite"] if named[0] == "train" else []  # which two of them print
        shown = CliRunner().invoke(app, [*named, *more])
        assert shown.exit_code == 0, (arguments, shown.output, shown.exception)

    assert {arguments[0] for arguments in printed} == {"predict", "train"}
    assert "training accuracy" in shown.output
    trained = (tmp_path / "trained" / "README.md").read_text()
    assert "The search ran" not in trained
    assert "The config comes from an earlier export" in trained


def test_the_cost_counts_the_confirmation_too(finished: Finished) -> None:
    seen = finished.session.snapshot()

    n_splits = len(finished.workspace.data.splits)
    assert seen.search_cost.epochs == 3 * n_splits
    assert seen.confirm_cost.epochs == 3 * len(finished.verdict.rows)
    assert (seen.search_cost + seen.confirm_cost).processor_seconds > 0


def test_programs_read_the_chosen_point_and_the_confirmation(finished: Finished, tmp_path: Path) -> None:
    deliver.export(
        finished.session, finished.workspace, finished.verdict, tmp_path / "best", overwrite=False, onnx=False
    )

    seen = json.loads(json.dumps(finished.session.snapshot().as_dict()))

    chosen = finished.verdict.chosen
    assert seen["chosen"]["label"] == seen["confirmation"]["chosen"] == chosen.label
    assert seen["chosen"]["point"] == asdict(chosen.point)
    assert seen["confirmation"]["finished"] is True
    assert seen["exports"][-1]["folder"] == str(tmp_path / "best")
    assert seen["exports"][-1]["kind"] == "chosen"


def test_every_kind_of_export_is_listed_once_per_folder(finished: Finished, tmp_path: Path) -> None:
    session, workspace, verdict = finished.session, finished.workspace, finished.verdict
    session.optuna_study().set_user_attr(attributes.EXPORTS, [])
    several = replace(verdict, cost_objectives=("multiply_adds",))
    for _ in range(2):
        written = deliver.export_front(
            session, workspace, several, tmp_path / "front", overwrite=True, onnx=False
        )
        both = Combination("ensemble", 2)
        export_combined(session, workspace, tmp_path / "both", both, overwrite=True)

    listed = session.snapshot().as_dict()["exports"]

    assert [row["folder"] for row in listed] == [*map(str, written), str(tmp_path / "both")]
    assert [row["kind"] for row in listed] == ["front"] * len(written) + ["ensemble"]
    assert [row["label"] for row in listed[:-1]] == [row.label for row in several.front]


def test_an_unfinished_confirmation_is_not_judged(
    study_text: Callable[..., str], workshop: tiny.Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "early.toml"
    file.write_text(tiny.lighter(study_text(name="early", trials=1, epochs=1)))
    session = open_session(file, storage_url=f"sqlite:///{tmp_path}/tlopt.db", runs=tmp_path)
    workspace = replace(workshop.workspace, study=session.study)
    tiny.plant(monkeypatch, lambda point: [0.5])
    workflow.begin(session, workspace)
    serve.run_studies([(session, workspace)], stage="search", interrupt=Interrupt())
    workflow.begin_confirm(session, workspace)

    with pytest.raises(NotReady, match=r"early\.confirm: 0 of 12 runs have ended; .* tlopt confirm"):
        workflow.judge(session, workspace)


def test_a_search_that_was_not_begun_cannot_be_confirmed(
    study_text: Callable[..., str], workshop: tiny.Workshop, tmp_path: Path
) -> None:
    file = tmp_path / "none.toml"
    file.write_text(tiny.lighter(study_text(name="none-yet")))
    session = open_session(file, storage_url=f"sqlite:///{tmp_path}/tlopt.db")

    with pytest.raises(NotReady, match=r"the study 'none-yet' of \S+ has not been started .* tlopt run"):
        workflow.begin_confirm(session, workshop.workspace)


def test_a_search_without_a_trial_whose_hours_are_over_says_what_to_raise(
    study_text: Callable[..., str],
    workshop: tiny.Workshop,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "late.toml"
    file.write_text(tiny.lighter(study_text(name="late", budget="hours = 2")))
    session = open_session(file, storage_url=f"sqlite:///{tmp_path}/tlopt.db")
    workspace = replace(workshop.workspace, study=session.study)
    opened, _ = workflow.begin(session, workspace)
    opened.set_user_attr(attributes.BEGAN, 1000.0)

    with pytest.raises(NotReady) as caught:
        workflow.begin_confirm(session, workspace)
    assert str(caught.value).startswith(
        "study late has no complete trial to confirm: budget.hours = 2 is over, with 0 of 4 trials finished"
    )
    assert "raise budget.hours in the study file" in str(caught.value)
    assert "first: tlopt run" not in str(caught.value)
    tables.show_search(session.snapshot(), Console())
    assert capsys.readouterr().out == ""


def test_a_study_that_means_something_else_is_refused(finished: Finished) -> None:
    changed = replace(
        finished.session, study=finished.session.study.model_copy(update={"objective": "macro_f1"})
    )

    with pytest.raises(StudyChanged, match="objective: study has accuracy, here is macro_f1"):
        workflow.begin(changed, finished.workspace)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"x\.toml: there is no such study file; tlopt init"):
        open_session(tmp_path / "x.toml", storage_url=f"sqlite:///{tmp_path}/tlopt.db")


@pytest.mark.parametrize("asked", [{"points": 2}, {"soup": True, "ensemble": True, "points": 2}])
def test_an_export_that_is_not_clear_is_refused_before_anything_is_read(
    asked: dict[str, int], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="soup"):
        tlopt.export(tmp_path / "nowhere.toml", tmp_path / "out", **asked)  # type: ignore[arg-type]


def test_a_worker_that_ends_with_an_error_is_reported_with_what_it_said(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = finished.session.study.budget.model_copy(update={"trials": 4})
    study = finished.session.study.model_copy(update={"budget": more})
    session = replace(finished.session, study=study, target="no-such-study", runs=tmp_path)

    with pytest.raises(WorkersFailed, match=r"(?s)1 of 1 worker .* no study 'no-such-study'"):
        list(workflow.search(session, finished.workspace, n_workers=1))


@pytest.mark.slow
def test_one_call_searches_confirms_and_judges_with_workers(
    study_text: Callable[..., str], tmp_path: Path
) -> None:
    file = tmp_path / "whole.toml"
    file.write_text(tiny.lighter(study_text(name="whole", trials=3, epochs=1, tables=CONFIRM)))
    url = f"sqlite:///{tmp_path}/tlopt.db"

    verdict = tlopt.run(file, storage=url, n_workers=2, runs=tmp_path / "runs")

    searched = open_session(file, storage_url=url).optuna_study()
    states = [trial.state for trial in searched.trials if trial.state != TrialState.FAIL]
    assert states == [TrialState.COMPLETE] * 3
    assert verdict.finished
    assert verdict.test_readings == 1
