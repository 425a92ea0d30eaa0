"""The second stage is a study of its own, leased, resumed and budgeted; the smallest network is exported."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
import pytest
import tiny
import torch
from finished import make_row, make_verdict
from optuna.trial import TrialState
from optuna_dashboard import get_note
from postgres import Backup, Server
from typer.testing import CliRunner

from tlopt.app import admin, serve, workflow
from tlopt.app.compact import stage
from tlopt.app.handle import Session, list_studies, open_session
from tlopt.cli.main import app
from tlopt.confirmation.verdict import Verdict
from tlopt.errors import NotReady, StudyChanged
from tlopt.exports.read import read_export
from tlopt.exports.result import RESULT, read_result
from tlopt.search.defaults import defaults
from tlopt.spec.trial_spec import PruneSpec
from tlopt.storage.attributes import PRUNINGS, TrialRecord, records_of
from tlopt.training.checkpoint import unpack
from tlopt.trial.pruning import pruning_identity
from tlopt.trial.workspace import Workspace
from tlopt.worker.shutdown import Interrupt

KILLED = Path(__file__).parents[1] / "compact" / "killed_prune.py"
PRUNE = (
    '[prune]\nmultiply_adds = [{shares}]\ncriterion = ["l1"]\nrounds = 2\nepochs = 1\nloss_max = {loss_max}'
)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A study whose confirmation has chosen plain fine-tuning, with its prunings planned."""

    session: Session
    workspace: Workspace
    verdict: Verdict
    url: str

    def work(self) -> int:
        """Prunings that a worker ends in this process."""
        return serve.run_studies(
            [(self.session, self.workspace)], stage="prune", interrupt=Interrupt(), n_threads=1
        )

    @property
    def records(self) -> tuple[TrialRecord, ...]:
        return records_of(self.session.prunings())


@pytest.fixture
def make_stage(
    tmp_path: Path, study_text: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Stage]:
    """Begins the prunings of a study: `make_stage("a", shares="0.7", loss_max=100)`."""
    torch.set_num_threads(1)

    def make(name: str, *, shares: str = "0.7", loss_max: float = 100.0, url: str = "") -> Stage:
        url, file = url or f"sqlite:///{tmp_path}/{name}.db", tmp_path / f"{name}.toml"
        table = PRUNE.format(shares=shares, loss_max=loss_max)
        search = 'optimizer = "adamw"\nlr = 0.003'
        file.write_text(tiny.lighter(study_text(name="stripes", search=search, tables=table)))
        session = open_session(file, storage_url=url, runs=tmp_path / f"runs-{name}")
        workspace = workflow.prepare(session)
        workflow.begin(session, workspace, n_threads=1)
        plain = replace(defaults(session.study, workspace.facts)[1].point, epochs=1)
        verdict = make_verdict([make_row("plain fine-tuning", (0.5, 0.6, 0.4), point=plain, number=-1)])
        verdict = replace(verdict, study="stripes")
        stage.begin_prunings(session, workspace, verdict)
        return Stage(session=session, workspace=workspace, verdict=verdict, url=url)

    return make


def test_each_goal_is_pruned_once_and_the_smallest_is_exported(
    make_stage: Callable[..., Stage], tmp_path: Path
) -> None:
    begun = make_stage("a", shares="0.7, 0.5, 0.0001")

    assert begun.work() == 3
    assert begun.work() == 0

    larger, smaller, hopeless = begun.records
    assert [each.outcome for each in begun.records] == ["complete", "complete", "infeasible"]
    assert "multiply-adds cannot fall to" in hopeless.cause
    assert larger.inference_cost["multiply_adds"] > smaller.inference_cost["multiply_adds"]
    trials = begun.session.prunings().get_trials(deepcopy=False)
    assert [sorted(each.intermediate_values) for each in trials] == [[0, 1], [0, 1], []]
    assert all(each.state in (TrialState.COMPLETE, TrialState.PRUNED) for each in trials)

    note = get_note(begun.session.prunings())
    assert "**Prunings of stripes**" in note
    assert all(f"| {each.label} | " in note for each in begun.records)

    written = stage.export_smallest(
        begun.session, begun.workspace, begun.verdict, tmp_path / "out", overwrite=False
    )
    result = read_result(written)
    assert read_export(written).is_compact
    assert result["network"]["multiply_adds"] == smaller.inference_cost["multiply_adds"]
    assert [row["kept"] for row in result["pruned"]["rounds"]] == [False, False, True]

    said = begun.session.snapshot().as_dict()
    assert [row["goal"] for row in said["prunings"]["trials"]] == [each.label for each in begun.records]
    assert said["cost"]["prunings"]["epochs"] == 4
    assert said["exports"][-1]["latency_ms"].keys() == {"before", "here"}
    console = CliRunner().invoke(app, ["status", "stripes", "--storage", begun.url])
    assert "3 of 3 prunings ended; the smallest network has" in " ".join(console.stdout.split())


def test_a_network_lost_on_this_machine_is_pruned_again_with_the_same_result(
    make_stage: Callable[..., Stage], tmp_path: Path
) -> None:
    begun = make_stage("a")
    begun.work()
    files = []
    for name in ("first", "second"):
        folder = stage.export_smallest(
            begun.session, begun.workspace, begun.verdict, tmp_path / name, overwrite=False
        )
        files.append((folder / "weights.safetensors").read_bytes())
        begun.session.prune_folders.pruned_file(0).unlink(missing_ok=True)

    assert files[0] == files[1]


def test_a_pruning_that_loses_too_much_at_once_is_pruned_and_nothing_is_exported(
    make_stage: Callable[..., Stage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlopt.compact import prune as compact

    accuracies = iter([0.9, 0.5])  # of the network before, and after the first round
    measure = compact.compute_metrics
    monkeypatch.setattr(
        compact, "compute_metrics", lambda *given: replace(measure(*given), accuracy=next(accuracies))
    )
    begun = make_stage("a", loss_max=2)

    assert begun.work() == 1

    (ended,) = begun.records
    assert (ended.outcome, ended.last_epoch) == ("pruned", 0)
    lost = "round 1 lost 40.0 points of validation accuracy (50.0 % left), more than 2.0"
    assert ended.cause == lost
    with pytest.raises(NotReady, match="no pruning stayed within the bound"):
        stage.export_smallest(begun.session, begun.workspace, begun.verdict, tmp_path, overwrite=False)


def test_prunings_are_commanded_hidden_and_deleted_with_their_study(
    make_stage: Callable[..., Stage], tmp_path: Path
) -> None:
    begun = make_stage("a")
    assert [row.name for row in list_studies(begun.url)] == ["stripes"]

    admin.command(begun.session, "paused")
    store, deletion = admin.plan_deletion("stripes", storage_url=begun.url, runs=tmp_path)
    admin.delete(store, deletion)

    assert list(deletion.trials) == ["stripes.prune", "stripes"]
    assert optuna.get_all_study_names(store) == []


def test_a_search_is_refused_at_its_start_where_prunings_of_an_older_one_have_its_name(
    make_stage: Callable[..., Stage],
) -> None:
    begun = make_stage("a")
    optuna.delete_study(study_name="stripes", storage=begun.session.store)

    with pytest.raises(StudyChanged, match=r"delete the other with: tlopt delete stripes\.prune"):
        workflow.begin(begun.session, begun.workspace, n_threads=1)

    one_stage = begun.session.study.model_copy(update={"prune": PruneSpec()})
    workflow.begin(replace(begun.session, study=one_stage), begun.workspace, n_threads=1)
    with pytest.raises(StudyChanged, match=r"delete the other with: tlopt delete stripes\.prune"):
        stage.begin_prunings(begun.session, begun.workspace, begun.verdict)


@pytest.mark.parametrize("stored", ["nothing", "attributes"])
def test_prunings_whose_beginning_was_killed_are_begun_again(
    make_stage: Callable[..., Stage], stored: str
) -> None:
    begun = make_stage("a")
    optuna.delete_study(study_name="stripes.prune", storage=begun.session.store)
    if stored == "nothing":
        optuna.create_study(study_name="stripes.prune", storage=begun.session.store, direction="maximize")
    else:
        workflow.open_companion(begun.session, begun.workspace, "stripes.prune", PRUNINGS)
    workflow.begin(begun.session, begun.workspace, n_threads=1)

    opened, plan = stage.begin_prunings(begun.session, begun.workspace, begun.verdict)

    assert plan.n_open([]) == len(opened.user_attrs[PRUNINGS]) == 1


def test_a_result_of_another_pruning_is_not_the_result(
    make_stage: Callable[..., Stage], tmp_path: Path
) -> None:
    begun = make_stage("a")
    begun.work()
    folder, session = tmp_path / "compact", begun.session
    stage.export_smallest(session, begun.workspace, begun.verdict, folder, overwrite=False)
    assert not stage.is_left(session, begun.verdict, folder)
    result = json.loads((folder / RESULT).read_text())

    for other in (
        {"pruned": result["pruned"] | {"criterion": "taylor"}},
        {"network": result["network"] | {"seed": 1}},
        {"trial": 7},
        {"network": None},
        {"pruned": [1]},
    ):
        (folder / RESULT).write_text(json.dumps(result | other))
        assert stage.is_left(session, begun.verdict, folder)


def test_goals_added_to_the_file_are_added_to_the_prunings(
    make_stage: Callable[..., Stage], tmp_path: Path
) -> None:
    begun = make_stage("a")
    begun.work()
    exported = tmp_path / "compact"
    stage.export_smallest(begun.session, begun.workspace, begun.verdict, exported, overwrite=False)
    assert not stage.is_left(begun.session, begun.verdict, exported)
    wider = begun.session.study.prune.model_copy(update={"multiply_adds": (0.7, 0.6)})
    study = begun.session.study.model_copy(update={"prune": wider})
    later = replace(begun, session=replace(begun.session, study=study))
    stage.begin_prunings(later.session, later.workspace, later.verdict)

    assert later.work() == 1

    assert [each.label.partition(" %")[0] for each in later.records] == ["70.0", "60.0"]
    assert stage.is_left(later.session, later.verdict, exported), "there is the network of 70 %"
    assert not stage.is_left(begun.session, begun.verdict, exported), "the first file asks for that one"


def worker(begun: Stage, *place: str) -> subprocess.CompletedProcess[str]:
    """A worker of the prunings in a process of its own, killed at a place if one is given."""
    session = begun.session
    start = [str(KILLED), *place] if place else ["-m", "tlopt"]
    command = [sys.executable, *start, "worker", session.target, "--prune", "--runs", str(session.runs)]
    options, environment = ["--threads", "1", "--device", "cpu"], {**os.environ, "TLOPT_STORAGE": begun.url}
    return subprocess.run([*command, *options], capture_output=True, text=True, check=False, env=environment)


@pytest.mark.slow
def test_a_pruning_whose_workers_are_killed_goes_on_and_ends_with_the_same_network(
    make_stage: Callable[..., Stage],
) -> None:
    whole, killed = make_stage("whole"), make_stage("killed")
    whole.work()

    for place in (
        ("step", "4"),  # in the first round: 2 steps train the network before
        ("removal", "2"),  # after the first round
        ("measuring", "1"),
    ):
        assert worker(killed, *place).returncode == -9, place
        (trial,) = killed.session.prunings().get_trials(deepcopy=False)
        assert trial.state == TrialState.RUNNING
    last = worker(killed)

    assert last.returncode == 0, last.stderr
    assert_resumed(killed, whole)


@pytest.mark.slow
@pytest.mark.postgres
def test_a_killed_pruning_goes_on_in_a_restored_database(
    make_stage: Callable[..., Stage], postgres_server: Server, postgres_url: str
) -> None:
    whole, killed = make_stage("whole"), make_stage("killed", url=postgres_url)
    whole.work()

    assert worker(killed, "removal", "2").returncode == -9  # after the first round
    dumped = Backup(postgres_server, postgres_url)
    dumped.take()
    try:
        assert worker(killed, "measuring", "1").returncode == -9  # which the restored database knows not of
        dumped.restore()
    finally:
        dumped.remove()
    last = worker(killed)

    assert last.returncode == 0, last.stderr
    assert_resumed(killed, whole)


def assert_resumed(killed: Stage, whole: Stage) -> None:
    """The pruning that was killed has gone on and ended as the undisturbed one."""
    (undisturbed,), (resumed,) = whole.records, killed.records
    assert resumed.value == undisturbed.value
    assert resumed.metrics == undisturbed.metrics
    assert [each for each in resumed.notes if each.startswith("resumed after round")]
    networks = [result_network(each) for each in (whole, killed)]
    assert networks[0].keys() == networks[1].keys()
    assert all(torch.equal(each, networks[1][name]) for name, each in networks[0].items())


def result_network(begun: Stage) -> dict[str, torch.Tensor]:
    """The tensors of a finished pruning."""
    _, plan = stage.join_prunings(begun.session, begun.workspace)
    spec = plan.trial_spec(0, {"pruning": 0})
    assert spec.weights_file is not None
    data = spec.weights_file.read_bytes()
    found: dict[str, torch.Tensor] = unpack(data, identity=pruning_identity(begun.workspace, spec)).further[
        "network"
    ]
    return found


@pytest.mark.slow
def test_one_command_does_both_stages(
    tmp_path: Path, study_text: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table = PRUNE.format(shares="0.6", loss_max=100) + "\n[confirm]\npoints = 1"
    search = 'optimizer = "adamw"\nlr = { log = [1e-4, 1e-2] }\nclassifier = "network"'
    text = study_text(name="stripes", trials=1, epochs=1, search=search, tables=table)
    Path("stripes.toml").write_text(tiny.lighter(text))

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tlopt", "run", "stripes.toml", "--workers", "1"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    first, second = run(), run()

    assert first.returncode == 0, first.stderr
    assert "smallest network exported to exports/stripes-compact" in first.stdout
    assert "from the whole network to the smallest" in first.stdout
    assert "stripes is finished and exported to exports/stripes" in second.stdout
    whole, compact = (read_result(Path("exports") / name) for name in ("stripes", "stripes-compact"))
    share = compact["network"]["multiply_adds"] / whole["network"]["multiply_adds"]
    assert 0.5 < share <= 0.6
    assert "The second stage removes channels" in Path("exports/stripes.html").read_text()
    assert compact["pruned"]["n_rounds"] == 2
