"""Trials that hang, kill their workers or lack memory or disk space end, and the others continue."""

import contextlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny
import torch
from optuna.trial import FrozenTrial, TrialState
from service import (
    FAULTY,
    LOSS,
    NO_PRUNER,
    Service,
    Started,
    assert_undisturbed,
    result_of,
    resumed_at,
    trained,
    wait,
)
from service import make_service as make_service

pytestmark = pytest.mark.slow

STARTS_MAX = 12  # that a supervisor of these tests tries


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def supervise(here: Service, faults: str) -> list[tuple[int, str]]:
    """Exit statuses and errors of a worker that is started again until it ends without a traceback."""
    ended: list[tuple[int, str]] = []
    while len(ended) < STARTS_MAX:
        status, _, errors = here.worker(faults=faults).end()
        ended.append((status, errors))
        if status in (0, 1) and "Traceback" not in errors:
            return ended
    raise AssertionError(f"no end after {STARTS_MAX} starts: {ended}")


def constraints(trial: FrozenTrial) -> list[float]:
    """A trial's constraint values for the sampler; above 0: infeasible."""
    return [
        value for key, value in trial.system_attrs.items() if "constraint" in key for value in as_list(value)
    ]


def as_list(value: object) -> list[float]:
    return [float(each) for each in value] if isinstance(value, (list, tuple)) else [float(str(value))]


# Hangs


def test_a_hung_trial_is_requeued_and_its_process_replaced(
    storage_url: str, service: Callable[..., Service], workshop: tiny.Workshop
) -> None:
    limits = NO_PRUNER + "[service]\nstall_seconds_max = 8\ncrashes_max = 9\ncheckpoint_seconds = 0"
    here = service(storage_url, head=LOSS, trials=2, epochs=6, tables=limits)
    worker = here.worker(faults="hang")
    here.wait_for_epochs(1)
    assert str(FAULTY).encode() in command(worker)

    wait(lambda: str(FAULTY).encode() not in command(worker), "successor of the process")
    status, _, errors = worker.end()

    assert status == 0, errors
    assert "no step for" in errors
    assert_undisturbed(here, workshop)
    hung, other = here.trials()
    assert hung.worker == other.worker
    assert hung.worker.endswith(f":{worker.pid}")
    assert len(trained(here.log(0))) >= 2


def command(started: Started) -> list[bytes]:
    """The current command line of the process; empty once it has ended."""
    try:
        return Path(f"/proc/{started.pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


# Crashes


def test_a_point_that_kills_its_workers_ends_as_crashed_and_the_others_go_on(
    storage_url: str, service: Callable[..., Service]
) -> None:
    here = service(storage_url, trials=3, epochs=1, tables=NO_PRUNER + "[service]\ncrashes_max = 2")

    ended = supervise(here, "kill-probe")

    assert [status for status, _ in ended] == [-signal.SIGKILL] * 2 + [0]
    probe, *others = here.frozen()
    assert (probe.state, result_of(probe)["outcome"]) == (TrialState.PRUNED, "crashed")
    assert "lost 2 times in a row without progress" in result_of(probe)["cause"]
    assert [value > 0 for value in constraints(probe)] == [True]
    assert [trial.state for trial in others] == [TrialState.COMPLETE] * 2
    assert [[value > 0 for value in constraints(trial)] for trial in others] == [[False], [False]]


def test_crashes_of_all_trials_stop_the_study_until_it_is_resumed(
    storage_url: str, service: Callable[..., Service]
) -> None:
    limits = NO_PRUNER + "[service]\ncrashes_max = 2\nfailures_max = 2"
    here = service(storage_url, trials=4, epochs=1, tables=limits)

    *killed, (status, errors) = supervise(here, "kill")

    # a worker that looks before it has seen that the one before has ended begins another trial
    assert {status for status, _ in killed} == {-signal.SIGKILL}
    assert_stopped(here, status, errors, "the last 2 trials crashed or failed: lost 2 times in a row")
    assert [trial.outcome for trial in here.trials() if trial.counts] == ["crashed"] * 2
    assert_goes_on_after_resume(here, n_counted=4)


def test_a_programming_error_in_all_trials_stops_the_study_until_it_is_resumed(
    storage_url: str, service: Callable[..., Service]
) -> None:
    limits = NO_PRUNER + "[service]\nfailures_max = 2"
    here = service(storage_url, trials=2, epochs=1, tables=limits)

    *failed, (status, errors) = supervise(here, "bug")

    assert [status for status, _ in failed] == [1] * 2
    assert all("ZeroDivisionError: planted" in said for _, said in failed)
    assert_stopped(here, status, errors, "the last 2 trials crashed or failed: ZeroDivisionError: planted")
    assert [(t.outcome, t.state) for t in here.trials()] == [("failed", TrialState.FAIL)] * 2
    assert_goes_on_after_resume(here, n_counted=2)


def assert_stopped(here: Service, status: int, errors: str, reason: str) -> None:
    """The worker that has ended, and the next one, end with a line that says why."""
    again = here.worker(faults="no-torch").end()
    for ended in ((status, errors), (again[0], again[2])):
        assert ended[0] == 1
        line = ended[1].splitlines()[-1]  # before it, perhaps, that a trial has lost its worker
        assert line.startswith(f"error: {here.name} was stopped: {reason}")
        assert line.endswith(f"tlopt resume {here.name}")


def assert_goes_on_after_resume(here: Service, *, n_counted: int) -> None:
    """A worker without faults spends the budget once a person has said so."""
    here.tell("resume")
    status, _, errors = here.worker().end()
    assert (status, errors) == (0, "")
    assert sum(trial.counts for trial in here.trials()) == n_counted
    assert {trial.outcome for trial in here.trials()} <= {"complete", "crashed", "failed"}


# Memory


def test_batches_go_through_in_as_many_pieces_as_memory_wants(service: Callable[..., Service]) -> None:
    here = service(trials=1, epochs=2, tables=NO_PRUNER)

    status, _, errors = here.worker(faults="tight").end()

    assert (status, errors) == (0, "")
    (trial,) = here.frozen()
    assert trial.state == TrialState.COMPLETE
    assert result_of(trial)["n_micro"] == 4
    assert any("split into 4" in note for note in here.trials()[0].notes)


def test_a_point_that_never_fits_ends_as_out_of_memory_and_the_next_one_runs(
    service: Callable[..., Service],
) -> None:
    here = service(trials=2, epochs=1, tables=NO_PRUNER)

    status, _, errors = here.worker(faults="tight-probe").end()

    assert (status, errors) == (0, "")
    probe, other = here.frozen()
    assert (probe.state, result_of(probe)["outcome"]) == (TrialState.PRUNED, "out_of_memory")
    assert result_of(probe)["n_micro"] == 8  # pieces of two images
    assert [value > 0 for value in constraints(probe)] == [True]
    assert other.state == TrialState.COMPLETE


# Disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    if sys.platform != "linux" or mount is None:
        pytest.skip("a small file system needs Linux's mount")
    said = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True
    )
    if said.returncode != 0:
        pytest.skip(f"a small file system needs root: {said.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_takes_the_checkpoints_and_not_the_trial(
    service: Callable[..., Service], workshop: tiny.Workshop, small_disk: Path
) -> None:
    whole = "freeze_depth = 0"  # the whole network and its moments: some 18 MB
    here = service(head=LOSS, trials=1, epochs=3, search=whole, tables=NO_PRUNER)

    status, _, errors = here.worker("--checkpoints", str(small_disk)).end()

    assert (status, errors) == (0, "")
    assert_undisturbed(here, workshop)
    (trial,) = here.trials()
    (note,) = trial.notes
    assert note.startswith("checkpoints cannot be written: ")
    assert f"free disk space in {small_disk}/" in note
    assert note.endswith("or choose another place with --checkpoints")
    assert "No space left" in note
    assert [file for file in small_disk.rglob("*") if file.is_file()] == []


@pytest.mark.parametrize("n_truncated", [1, 2])
def test_a_truncated_checkpoint_gives_way_to_the_one_before_or_to_the_beginning(
    n_truncated: int, service: Callable[..., Service], workshop: tiny.Workshop
) -> None:
    here = service(head=LOSS, trials=1, epochs=16, tables=NO_PRUNER)
    killed = here.worker(faults="slow")
    here.wait_for_epochs(1)
    wait(lambda: len(here.checkpoints(0)) == 2, "second checkpoint")
    killed.send(signal.SIGKILL)
    killed.end()
    older, newest = here.checkpoints(0)[-2:]
    for file in [newest, older][:n_truncated]:
        truncate(file)

    status, _, errors = here.worker().end()

    assert status == 0, errors
    assert_undisturbed(here, workshop)
    (trial,) = here.trials()
    assert sum("is unreadable" in note for note in trial.notes) == n_truncated
    assert resumed_at(trial) == ([int(older.name.split("-")[0])] if n_truncated == 1 else [])
    assert trained(here.log(0))[1][0] == (resumed_at(trial) or [0])[0]


def truncate(file: Path) -> None:
    """Leave the first half of a file."""
    with contextlib.closing(file.open("r+b")) as opened:
        opened.truncate(file.stat().st_size // 2)


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_worker_whose_sqlite_file_is_gone_says_so_and_ends(
    how: str, service: Callable[..., Service], tmp_path: Path
) -> None:
    here = service(trials=1, epochs=16, tables=NO_PRUNER + "[service]\ngrace_seconds = 5")
    worker = here.worker(faults="hold,slow")
    here.wait_for_epochs(1)
    file = tmp_path / "tlopt.db"
    if how == "replaced":
        shutil.copy(file, tmp_path / "copy.db")
        (tmp_path / "copy.db").replace(file)
    else:
        file.unlink()

    here.go()
    status, _, errors = worker.end()

    assert status == 1, errors
    assert "tlopt.db was removed or replaced while this process was using it" in errors
    assert "Traceback" not in errors
