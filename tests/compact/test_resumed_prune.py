"""A pruning that is stopped anywhere goes on where it was, and ends with the same network, bit for bit."""

import errno
import subprocess
import sys
from collections import deque
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from tlopt.app.compact.pruning_state import sole_pruning, state_folder
from tlopt.cli.main import app
from tlopt.compact.prune import Pruning, Recipe, begin_pruning, pruning_events
from tlopt.compact.saved import pack_pruning, restore_pruning
from tlopt.errors import DataError
from tlopt.exports.read import read_export
from tlopt.exports.result import read_result
from tlopt.model.network import Network
from tlopt.spec.trial_spec import Criterion, PruneGoal
from tlopt.training.checkpoint import unpack
from tlopt.training.checkpoint_store import CheckpointStore
from tlopt.training.loop import Epoch

OPTIONS = ("--parameters", "0.5", "--rounds", "2", "--epochs", "2", "--loss-max", "100", "--device", "cpu")
KILLED = Path(__file__).with_name("killed_prune.py")


def after_stops(pruning: Pruning) -> Pruning:
    """`pruning`, ended in pieces: after each step, epoch and round it is saved, and another one restored."""
    start = begin_pruning(pruning.network, pruning.recipe, pruning.goal)
    while next(pruning_events(pruning), None) is not None:
        data = pack_pruning(pruning, identity="these", facts={})
        pruning = restore_pruning(unpack(data, identity="these"), start)
    return pruning


@pytest.mark.parametrize("criterion", ["taylor", "history"])
def test_a_pruning_stopped_after_every_step_ends_with_the_same_network(
    criterion: Criterion, network: Network, recipe: Recipe
) -> None:
    goal = PruneGoal(quantity="parameters", share=0.5, criterion=criterion, n_rounds=2, loss_max=1.0)
    whole = begin_pruning(network, recipe, goal)
    deque(pruning_events(whole), maxlen=0)

    pieces = after_stops(begin_pruning(network, recipe, goal))

    assert [replace(each, trained=None) for each in pieces.rounds] == [
        replace(each, trained=None) for each in whole.rounds
    ]
    assert [each.trained and each.trained.train_loss for each in pieces.rounds] == [
        each.trained and each.trained.train_loss for each in whole.rounds
    ]
    assert pieces.n_epochs == whole.n_epochs == (3 if criterion == "history" else 2)
    state = pieces.network.net.state_dict()
    assert all(torch.equal(each, state[name]) for name, each in whole.network.net.state_dict().items())


def run_prune(export: Path, target: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "tlopt", "prune", str(export), str(target), *OPTIONS, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def killed(place: str, n: int, export: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """The command, killed the `n`th time that it is at `place`."""
    command = [sys.executable, str(KILLED), place, str(n), "prune", str(export), str(target), *OPTIONS]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_pruning_killed_in_every_place_ends_with_the_same_network(
    export_folder: Path, tmp_path: Path
) -> None:
    whole = run_prune(export_folder, tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    target = tmp_path / "killed"

    for place, n in (
        ("step", 3),  # in the second epoch
        ("saving", 3),  # after the first round
        ("removal", 1),  # between rounds
        ("step", 2),
        ("measuring", 1),
        ("exporting", 1),
        ("removing the state", 1),
    ):
        ended = killed(place, n, export_folder, target)
        assert ended.returncode == -9, (place, ended.stderr)
        assert state_folder(target).is_dir()
        assert target.exists() == (place == "removing the state")
    last = run_prune(export_folder, target)

    assert last.returncode == 0, last.stderr
    assert "pruning goes on after round 2 and 4 epochs in all" in last.stderr
    assert (target / "weights.safetensors").read_bytes() == (
        tmp_path / "whole" / "weights.safetensors"
    ).read_bytes()
    assert read_result(target)["pruned"] == read_result(tmp_path / "whole")["pruned"]
    assert [line for line in last.stdout.splitlines() if line.startswith(("before", "round"))] == [
        line for line in whole.stdout.splitlines() if line.startswith(("before", "round"))
    ]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["killed", "whole"]


@pytest.fixture
def stopped(export_folder: Path, tmp_path: Path) -> Path:
    """A target whose pruning was stopped after its first round."""
    from tlopt.app.compact.prune import PruneRequest, prune

    request = PruneRequest(folder=export_folder, to=tmp_path / "out", epochs=2, device="cpu")
    goal = PruneGoal(quantity="parameters", share=0.5, n_rounds=2, loss_max=1.0)
    events = prune(request, goal)
    assert [isinstance(next(events), Epoch) for _ in range(4)] == [False, True, True, False]
    events.close()
    return request.target


def in_process(export: Path, target: Path, *options: str) -> str:
    """The command's output, in this process."""
    shown = CliRunner().invoke(app, ["prune", str(export), str(target), *OPTIONS, *options])
    if shown.exception is not None:
        raise shown.exception
    return shown.stdout


def states(target: Path) -> list[Path]:
    return sorted(state_folder(target).rglob("*.ckpt"))


def test_a_damaged_state_is_left_out_and_the_one_before_taken(
    stopped: Path, export_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    newest = states(stopped)[-1]
    newest.write_bytes(newest.read_bytes()[:-100])

    shown = in_process(export_folder, stopped)

    assert "left out: checkpoint" in caplog.text
    assert "it is cut off or altered" in caplog.text
    assert "pruning goes on after round 0 and 1 epoch in all" in caplog.text
    assert shown.count("round 1 of 2") == 1
    assert not state_folder(stopped).exists()


def test_without_any_readable_state_pruning_begins_anew_and_says_so(
    stopped: Path, export_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for each in states(stopped):
        each.write_bytes(b"")

    in_process(export_folder, stopped)

    assert "no saved state can be read: the pruning begins anew" in caplog.text
    assert read_export(stopped).is_compact


def test_other_arguments_begin_anew_and_say_so(
    stopped: Path, export_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shown = in_process(export_folder, stopped, "--criterion", "l1")

    assert "of another export, or with other arguments, is removed" in caplog.text
    assert "goes on" not in caplog.text
    assert shown.count("epoch") >= 4
    assert read_result(stopped)["pruned"]["criterion"] == "l1"
    assert not state_folder(stopped).exists()


def test_a_second_process_is_refused_and_changes_nothing(stopped: Path, export_folder: Path) -> None:
    before = [(each, each.stat().st_mtime_ns) for each in states(stopped)]

    with sole_pruning(stopped), pytest.raises(DataError, match="another process is pruning to this folder"):
        in_process(export_folder, stopped)

    assert [(each, each.stat().st_mtime_ns) for each in states(stopped)] == before


def test_a_full_disk_is_said_once_and_pruning_goes_on(
    export_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(CheckpointStore, "write", full)

    in_process(export_folder, tmp_path / "out")

    (said,) = [each.getMessage() for each in caplog.records if "cannot be written" in each.getMessage()]
    assert "No space left on device; pruning goes on" in said
    assert read_export(tmp_path / "out").is_compact
