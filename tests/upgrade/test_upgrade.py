"""Databases, checkpoints, exports and study files of an earlier version, continued by this version.

`make_former.py` made `former/`: the files of that version and, in `expected.json`, its own results after it
had continued them. The tests use only the command line, Optuna and SQL, so that they survive changes within
the package. Stored values are compared exactly, trained ones within a tolerance, since processors differ.
"""

import contextlib
import csv
import io
import json
import os
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from postgres import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

FORMER = Path(__file__).with_name("former")
EXPECTED: dict[str, Any] = json.loads((FORMER / "expected.json").read_text(encoding="utf-8"))
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
REPORTED = [0, 1]  # epochs of both interrupted trials
EPOCHS = 5
LATER = {
    "classifier": "network",
    "norm_depth": 0,
    "norm_affine": "train",
    "train_images": 0,
    "label_noise": 0.0,
    "backbone_depth": 0,
    "neck_layers": 0,
    "neck_width": 256,
    "neck_kernel": 3,
    "neck_convolution": "plain",
    "activation": "relu",
}  # keys that it did not know, with what its trials meant
# Tolerances of a log-loss. Other vector instructions changed one by 6.5e-4, and a processor with AMX one of
# 5.75 by 0.3 % and one of 1.51 by 0.7 %.
NEARLY = 1e-2
NEARLY_SHARE = 0.02
SECONDS_MAX = 240.0  # of one command


@dataclass(frozen=True)
class Place:
    """A copy of the files that the earlier version left behind, and this version at work on them."""

    folder: Path  # working directory
    runs: Path
    url: str
    cache: Path
    processor: str = ""  # ATEN_CPU_CAPABILITY, with which torch names another processor

    def tlopt(self, *command: str) -> str:
        """Standard output of `tlopt COMMAND` on the CPU, which has to succeed."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("TLOPT_")}
        wanted = {
            "TLOPT_STORAGE": self.url,
            "TLOPT_CACHE": str(self.cache),
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin slow each other down where cores are shared
            "CUDA_VISIBLE_DEVICES": "",
        }
        capability = {"ATEN_CPU_CAPABILITY": self.processor} if self.processor else {}
        done = subprocess.run(
            [sys.executable, "-m", "tlopt", *command],
            cwd=self.folder,
            env=kept | wanted | capability,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS_MAX,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def study(self, name: str) -> tuple[dict[str, Any], list[FrozenTrial]]:
        """User attributes and trials of a study, by Optuna alone."""
        storage = optuna.storages.RDBStorage(self.url.replace("postgresql://", "postgresql+psycopg2://"))
        try:
            study = optuna.load_study(study_name=name, storage=storage)
            return study.user_attrs, study.get_trials()
        finally:
            storage.engine.dispose()

    def trials(self, name: str) -> list[FrozenTrial]:
        """A study's trials by number."""
        return self.study(name)[1]

    def log(self, study: str, trial: int) -> list[dict[str, Any]]:
        """The lines that the workers of both versions have written of a trial."""
        path = self.runs / study / "trials" / f"{trial:04d}.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def checkpoint_epochs(self, study: str) -> dict[int, int]:
        """The epoch at which the newest checkpoint of each trial that has any stands."""
        found = sorted((self.runs / "checkpoints" / study).glob("*/*.ckpt"))
        return {int(path.parent.name): int(path.name.split("-")[0]) for path in found}

    def on(self, folder: str) -> "Place":
        """The same files with the SQLite database and the runs in `folder`."""
        there = self.folder / folder
        return Place(self.folder, there / "runs", f"sqlite:///{there}/tlopt.db", self.cache, self.processor)


def unpacked(folder: Path) -> Place:
    """The fixtures' files in `folder`; no database is chosen yet."""
    with tarfile.open(FORMER / "former.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return Place(folder / "former", folder, "", folder / "cache")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Fresh copies of all files."""
    return unpacked(tmp_path)


def epochs_of_starts(log: list[dict[str, Any]]) -> list[list[int]]:
    """The epochs that were trained, for each start of the trial."""
    starts: list[list[int]] = []
    for line in log:
        if line["event"] == "start":
            starts.append([])
        elif line["event"] == "epoch":
            starts[-1].append(line["epoch"])
    return starts


def stored(trial: FrozenTrial) -> dict[str, Any]:
    """Everything that Optuna stores of a finished trial."""
    return {
        "number": trial.number,
        "state": trial.state,
        "values": trial.values,
        "params": trial.params,
        "distributions": trial.distributions,
        "reports": trial.intermediate_values,
        "user_attrs": trial.user_attrs,
        "system_attrs": trial.system_attrs,
        "dates": (trial.datetime_start, trial.datetime_complete),
    }


def assert_ended_as_expected(trial: FrozenTrial, expected: Mapping[str, Any]) -> None:
    """The trial ended as it did with the earlier version."""
    found = (trial.number, trial.state.name, trial.params, len(trial.intermediate_values))
    assert found == (expected["number"], expected["state"], expected["params"], expected["epochs"])
    assert trial.value == pytest.approx(expected["value"], abs=NEARLY)


def table(text: str) -> list[dict[str, str]]:
    """The rows of a CSV."""
    return list(csv.DictReader(io.StringIO(text)))


# A search in the middle, on both databases


@dataclass(frozen=True)
class WentOn:
    """The interrupted search before and after this version continued it to verdict and export."""

    place: Place
    before: list[FrozenTrial]
    after: list[FrozenTrial]
    checkpoint_epochs: Mapping[int, int]  # by trial
    export: Path

    @property
    def number(self) -> Mapping[str, int]:
        """The trials' numbers by what had befallen them: pruned, stopped, killed, enqueued."""
        return EXPECTED["interrupted"]  # type: ignore[no-any-return]


@contextlib.contextmanager
def search_on_sqlite(folder: Path) -> Iterator[WentOn]:
    """Continue it with `tlopt run`."""
    place = unpacked(folder).on("interrupted")
    before, stood_at = place.trials("interrupted"), place.checkpoint_epochs("interrupted")
    place.tlopt("run", "interrupted.toml", "--workers", "1", "--runs", str(place.runs), "--output", "out")
    yield WentOn(place, before, place.trials("interrupted"), stood_at, place.folder / "out")


@contextlib.contextmanager
def search_on_postgres(folder: Path, server: Server) -> Iterator[WentOn]:
    """Continue it with worker, `confirm` and `export`, as if on a processor without vector instructions."""
    left = unpacked(folder)
    there = left.folder / "postgres"
    with server.database() as database:
        with contextlib.closing(server.connect(database)) as connection, connection.cursor() as cursor:
            cursor.execute((there / "interrupted.sql").read_text(encoding="utf-8"))
            connection.commit()
        place = Place(left.folder, there / "runs", server.url(database), left.cache, "default")
        before, stood_at = place.trials("interrupted"), place.checkpoint_epochs("interrupted")
        runs = ("--runs", str(place.runs))
        place.tlopt("worker", "interrupted.toml", "--device", "cpu", *runs)
        place.tlopt("confirm", "interrupted", "--workers", "1", *runs)
        place.tlopt("export", "interrupted", "out", *runs)
        yield WentOn(place, before, place.trials("interrupted"), stood_at, place.folder / "out")


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def went_on(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WentOn]:
    """The interrupted search, continued on each kind of database."""
    folder = tmp_path_factory.mktemp(f"upgrade-{request.param}")
    if request.param == "sqlite":
        opened = search_on_sqlite(folder)
    else:
        opened = search_on_postgres(folder, request.getfixturevalue("postgres_server"))
    with opened as found:
        yield found


def test_the_budget_of_an_earlier_version_is_spent_exactly(went_on: WentOn) -> None:
    assert [trial.state for trial in went_on.before] == [
        *[TrialState.COMPLETE] * 3,
        TrialState.PRUNED,
        TrialState.WAITING,
        TrialState.RUNNING,
        TrialState.WAITING,
    ]
    assert [trial.number for trial in went_on.after] == list(range(8))
    assert {trial.state for trial in went_on.after} <= set(FINISHED)


def test_finished_trials_are_left_as_they_were(went_on: WentOn) -> None:
    finished = [stored(trial) for trial in went_on.before if trial.state in FINISHED]
    assert [row["number"] for row in finished] == [0, 1, 2, went_on.number["pruned"]]
    assert [stored(trial) for trial in went_on.after[:4]] == finished


@pytest.mark.parametrize("interrupted", ["stopped", "killed"])
def test_an_interrupted_trial_goes_on_after_its_checkpoint(went_on: WentOn, interrupted: str) -> None:
    number = went_on.number[interrupted]
    before, after = went_on.before[number], went_on.after[number]
    stood_at = went_on.checkpoint_epochs[number]
    assert (list(before.intermediate_values), stood_at > 0) == (REPORTED, True)

    starts = epochs_of_starts(went_on.place.log("interrupted", number))

    assert starts == [REPORTED, list(range(stood_at, EPOCHS))]
    assert after.params == before.params
    assert before.intermediate_values.items() <= after.intermediate_values.items()
    assert_ended_as_expected(after, EXPECTED["interrupted"]["trials"][number])


@pytest.mark.parametrize("interrupted", ["stopped", "killed"])
def test_a_note_says_that_a_trial_was_resumed_and_where_bits_may_differ(
    went_on: WentOn, interrupted: str
) -> None:
    """A checkpoint of another processor is used, and the note names the difference."""
    notes = went_on.after[went_on.number[interrupted]].user_attrs["tlopt:notes"]
    resumed = [note for note in notes if note.startswith("resumed")]
    assert len(resumed) == 1, notes
    if went_on.place.processor:
        assert "processor" in resumed[0]


def test_an_enqueued_trial_is_run_to_the_same_value(went_on: WentOn) -> None:
    number = went_on.number["enqueued"]
    asked = went_on.before[number].system_attrs["fixed_params"]
    assert went_on.after[number].params == asked
    assert_ended_as_expected(went_on.after[number], EXPECTED["interrupted"]["trials"][number])


def test_nothing_is_left_of_the_interruptions(went_on: WentOn) -> None:
    assert not list((went_on.place.runs / "checkpoints").rglob("*.ckpt"))
    assert json.loads(went_on.place.tlopt("status", "interrupted", "--json"))["workers"] == []


def test_the_verdict_is_reached(went_on: WentOn) -> None:
    runs = went_on.place.trials("interrupted.confirm")
    assert [run.state for run in runs] == [TrialState.COMPLETE] * 9  # the best and two defaults, three seeds
    result = json.loads((went_on.export / "result.json").read_text(encoding="utf-8"))
    tested = [row for row in result["verdict"]["candidates"] if row["test"]]
    assert {len(row["test"]) for row in tested} == {3}
    assert {"linear probe", "plain fine-tuning"} <= {row["label"] for row in tested}


def test_the_export_classifies(went_on: WentOn) -> None:
    rows = table(went_on.place.tlopt("predict", "out", "images"))
    right = [row["label"] == Path(row["path"]).parent.name for row in rows]
    assert len(rows) == 48
    assert sum(right) >= 24  # of the 36 that show what their folder says; a guess gets 16


def test_commands_answer_after_it(went_on: WentOn) -> None:
    assert_answers(went_on.place, went_on.after)


def six_digits(value: float) -> float:
    """As JSON and CSV have what was measured."""
    return float(f"{value:.6g}")


def assert_answers(place: Place, trials: list[FrozenTrial]) -> None:
    """Status, report and exports agree with the database of the interrupted search."""
    finished = [trial for trial in trials if trial.state in FINISHED]
    best = min((t for t in finished if t.state == TrialState.COMPLETE), key=lambda trial: trial.value or 0.0)

    status = json.loads(place.tlopt("status", "interrupted", "--json"))
    rows = table(place.tlopt("export", "interrupted", "--all", "-"))
    config = tomllib.loads(place.tlopt("export", "interrupted", "--config"))
    report = place.tlopt("report", "interrupted", "-")

    assert (status["trials_finished"], status["trials_planned"]) == (len(finished), 8)
    assert status["best"] == {
        "trial": best.number,
        "value": six_digits(best.value),
        "point": best.user_attrs["tlopt:point"] | LATER,
    }
    values = {int(row["number"]): float(row["value"]) for row in rows if row["value"]}
    assert values == {trial.number: six_digits(trial.value) for trial in trials if trial.value is not None}
    assert config["model"]["backbone"] == "timm:test_efficientnet"
    assert report.startswith("<!DOCTYPE html>")
    assert report.count("interrupted") > 1


def test_commands_answer_before_it(place: Place) -> None:
    middle = place.on("interrupted")
    assert_answers(middle, middle.trials("interrupted"))


# A confirmation in the middle


def test_a_confirmation_goes_on_to_the_verdict_of_the_earlier_version(place: Place) -> None:
    half, expected = place.on("half-confirmed"), EXPECTED["half-confirmed"]
    name, runs = "half-confirmed", "half-confirmed.confirm"
    search, before = half.trials(name), half.trials(runs)
    *ended, interrupted = before
    assert ({run.state for run in ended}, interrupted.state) == ({TrialState.COMPLETE}, TrialState.WAITING)

    half.tlopt("run", "half-confirmed.toml", "--workers", "1", "--runs", str(half.runs), "--output", "out")

    assert list(map(stored, half.trials(name))) == list(map(stored, search))
    after = half.trials(runs)
    assert list(map(stored, after[: len(ended)])) == list(map(stored, ended))
    assert [run.params for run in after] == [row["params"] for row in expected["runs"]]
    assert [run.state for run in after] == [TrialState.COMPLETE] * 9
    again = epochs_of_starts(half.log(runs, interrupted.number))[1]
    assert again == list(range(EPOCHS))  # its checkpoint is lost
    assert_same_verdict(json.loads((half.folder / "out/result.json").read_text()), expected["result"])


def assert_same_verdict(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """The same points, the same choice, and log-losses within the tolerance on validation and test."""
    assert (found["label"], found["point"]) == (expected["label"], expected["point"])
    for row, wanted in zip(found["verdict"]["candidates"], expected["verdict"]["candidates"], strict=True):
        assert (row["label"], row["point"]) == (wanted["label"], wanted["point"])
        for split in ("val", "test"):
            losses = [metrics["log_loss"] for metrics in row[split]]
            former = [metrics["log_loss"] for metrics in wanted[split]]
            assert losses == pytest.approx(former, abs=NEARLY, rel=NEARLY_SHARE)


# A study that is over, and its export


def test_a_finished_study_is_shown_and_not_run_again(place: Place) -> None:
    over = place.on("finished")
    before = [over.trials(name) for name in ("half-confirmed", "half-confirmed.confirm")]

    said = over.tlopt("run", "half-confirmed.toml", "--runs", "none", "--output", "finished/export")

    assert "half-confirmed is finished" in said
    after = [over.trials(name) for name in ("half-confirmed", "half-confirmed.confirm")]
    assert [list(map(stored, rows)) for rows in after] == [list(map(stored, rows)) for rows in before]
    assert not (place.folder / "none").exists()


def test_the_best_config_is_what_it_was(place: Place) -> None:
    found = tomllib.loads(place.on("finished").tlopt("export", "half-confirmed", "--config"))
    for name, expected in tomllib.loads(EXPECTED["half-confirmed"]["config"]).items():
        if isinstance(expected, dict):
            assert expected.items() <= found[name].items()
        else:
            assert found[name] == expected


def test_an_export_predicts_what_it_predicted(place: Place) -> None:
    rows = table(place.tlopt("predict", "finished/export", "images"))
    assert [(row["path"], row["label"]) for row in rows] == [
        (row["path"], row["label"]) for row in EXPECTED["predictions"]
    ]
    for row, expected in zip(rows, EXPECTED["predictions"], strict=True):
        numbers = {
            key: float(value) for key, value in expected.items() if key.startswith("p") and key != "path"
        }
        assert {key: float(row[key]) for key in numbers} == pytest.approx(numbers, abs=1e-5)


def test_an_exports_config_is_trained_on_all_images(place: Place) -> None:
    place.tlopt("train", "finished/export/config.toml", "again", "--device", "cpu")
    point = json.loads((place.folder / "again/result.json").read_text(encoding="utf-8"))["point"]
    assert point == EXPECTED["half-confirmed"]["result"]["point"]


# Study files


def test_studies_with_every_key_go_on(place: Place) -> None:
    every = place.on("every-key")
    before = {name: every.study(name) for name in ("every-key", "chosen-backbone")}

    every.tlopt(
        *("worker", "--studies", "every-key.toml,chosen-backbone.toml"),
        *("--device", "cpu", "--threads", "1", "--runs", str(every.runs)),
    )

    for name, (attributes, (first,)) in before.items():
        now, (same, second) = every.study(name)
        kept = attributes.keys() - {"tlopt:file"}  # with one trial more
        assert {key: now[key] for key in kept} == {key: attributes[key] for key in kept}
        assert stored(same) == stored(first)
        assert second.state in FINISHED
        assert second.distributions == first.distributions
