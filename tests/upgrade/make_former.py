"""Make `former/`: the files and databases that an earlier version leaves behind, for `test_upgrade.py`.

    git worktree add ../former COMMIT
    python tests/upgrade/make_former.py ../former tests/upgrade/former

Everything in `former/` was written by the program of that checkout, interrupted where it says so below; the
images, the pretrained weights and the study files are those of `former_inputs.py`. `expected.json` holds the
results that the same program came to when it went on from copies of these files.

The fixtures in the repository were made on 2026-11-28 with commit e8e1466 (tlopt 0.1.0, semantics version 4,
record format 2), CPython 3.11, torch 2.14.1, Optuna 5.0, timm 1.0.31 and PostgreSQL 15, on an AMD EPYC with
AVX-512. They stay as they are: a later version makes fixtures of its own beside them.
"""

import contextlib
import csv
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

sys.path.insert(0, str(Path(__file__).parents[1]))
from former_inputs import (
    CHOSEN_BACKBONE,
    EVERY_KEY,
    HALF_CONFIRMED,
    INTERRUPTED,
    draw_images,
    write_weights,
)
from postgres import Server, find_binaries, running

WAIT_SECONDS = 400.0
HELD_EPOCH = 2  # `hold` of tests/faulty.py lets no step end from this epoch on


# The former program


@dataclass(frozen=True)
class Former:
    """The program of a checkout, at work in a folder on one database."""

    checkout: Path
    place: Path  # working directory
    runs: Path
    url: str

    def start(self, *command: str, faults: str = "", place: Path | None = None) -> subprocess.Popen[str]:
        """`tlopt COMMAND` with one thread; with faults from the checkout's `tests/faulty.py`."""
        program = [str(self.checkout / "tests/faulty.py"), faults] if faults else ["-m", "tlopt"]
        return subprocess.Popen(
            [sys.executable, *program, *command],
            cwd=place or self.place,
            env=os.environ
            | {
                "PYTHONPATH": str(self.checkout),
                "TLOPT_STORAGE": self.url,
                "TLOPT_CACHE": str(self.place.parent / "cache"),
                "OMP_NUM_THREADS": "1",
            },
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *command: str) -> str:
        """Standard output of `tlopt COMMAND`, which has to succeed."""
        return finish(self.start(*command))

    def worker(self, *targets: str, faults: str = "", place: Path | None = None) -> subprocess.Popen[str]:
        """`tlopt worker` on the CPU with one thread."""
        options = ["--device", "cpu", "--threads", "1", "--runs", str(self.runs.absolute())]
        return self.start("worker", *targets, *options, faults=faults, place=place)

    def study(self, name: str) -> optuna.Study:
        """The study, by Optuna alone."""
        url = self.url.replace("postgresql://", "postgresql+psycopg2://")
        return optuna.load_study(study_name=name, storage=optuna.storages.RDBStorage(url))

    def trials(self, name: str) -> list[optuna.trial.FrozenTrial]:
        """Its trials; none before it exists."""
        with contextlib.suppress(KeyError):
            return self.study(name).get_trials(deepcopy=False)
        return []

    def wait_until_held(self, name: str, number: int) -> None:
        """Until a trial stands in the epoch in which `hold` holds it, its checkpoint written."""

        def stands() -> bool:
            trials = self.trials(name)
            return len(trials) > number and HELD_EPOCH - 1 in trials[number].intermediate_values

        wait(stands, f"held trial {number} of {name}")
        # the newest may be of the epoch before: no more than a twentieth of the time goes into them
        pattern = f"checkpoints/{name}/{number:06d}/*.ckpt"
        wait(lambda: any(self.runs.glob(pattern)), f"checkpoint of trial {number}")


def finish(process: subprocess.Popen[str], status: int = 0) -> str:
    """Standard output of a process that ends with this status."""
    out, errors = process.communicate(timeout=WAIT_SECONDS)
    if process.returncode != status:
        raise RuntimeError(f"{process.args} ended with {process.returncode}:\n{out}{errors}")
    return out


def wait(look: Callable[[], bool], what: str) -> None:
    """Until `look` says so."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not look():
        if time.monotonic() > deadline:
            raise RuntimeError(f"no {what} after {WAIT_SECONDS:g} s")
        time.sleep(0.1)


def beside(place: Path, name: str) -> Path:
    """A second working directory with the same inputs, whose worker can be held and let go on its own."""
    other = place.parent / name
    other.mkdir()
    for path in place.iterdir():
        (other / path.name).symlink_to(path)
    return other


# The states


def interrupt_search(former: Former) -> dict[str, int]:
    """A search of eight trials in the middle.

    Three are complete and one is pruned; two stand in their third epoch, of which one was handed back at
    SIGTERM and the other's worker was killed; one is enqueued; one does not exist yet. Returns their numbers.
    """
    name, file = "interrupted", former.place / "interrupted.toml"

    def write(trials: int) -> None:
        file.write_text(INTERRUPTED.format(name=name, objective="log_loss", trials=trials))

    write(3)
    finish(former.worker(file.name))
    poor = {"transfer_depth": 0, "freeze_depth": 0, "lr": 1e-6, "l2_sp": 1.0}
    former.study(name).enqueue_trial(poor)
    write(4)
    finish(former.worker(file.name))
    write(8)
    other = beside(former.place, f"beside-{former.runs.parent.name}")
    stopped = former.worker(file.name, faults="hold")
    former.wait_until_held(name, 4)
    killed = former.worker(file.name, faults="hold", place=other)
    former.wait_until_held(name, 5)
    stopped.send_signal(signal.SIGTERM)
    (former.place / "go").touch()  # the step that it is asked to finish may end
    finish(stopped)
    killed.kill()
    killed.communicate()
    (former.place / "go").unlink()
    good = {"transfer_depth": 6, "freeze_depth": 3, "lr": 5e-3, "l2_sp": 1e-2}
    former.study(name).enqueue_trial(good)
    states = [trial.state.name for trial in former.trials(name)]
    assert states == ["COMPLETE"] * 3 + ["PRUNED", "WAITING", "RUNNING", "WAITING"], states
    return {"pruned": 3, "stopped": 4, "killed": 5, "enqueued": 6}


def interrupt_confirmation(former: Former) -> None:
    """A search of four trials that is over, and its confirmation in the fifth of nine runs or so."""
    name, file = "half-confirmed", former.place / "half-confirmed.toml"
    file.write_text(HALF_CONFIRMED.format(name=name, objective="accuracy", trials=4))
    finish(former.worker(file.name))
    launcher = former.start("confirm", file.name, "--workers", "1", "--runs", str(former.runs.absolute()))
    wait(lambda: bool(former.trials(f"{name}.confirm")), "confirmation")
    launcher.send_signal(signal.SIGTERM)
    finish(launcher, 128 + signal.SIGTERM)
    fast = former.place / "fast"
    fast.touch()
    worker = former.worker(file.name, "--confirm", faults="slow")

    def states() -> list[str]:
        return [trial.state.name for trial in former.trials(f"{name}.confirm")]

    wait(lambda: states().count("COMPLETE") >= 3, "third run of the confirmation")
    fast.unlink()

    def is_half() -> bool:
        found = states()
        checkpoints = f"checkpoints/{name}.confirm/{len(found) - 1:06d}/*.ckpt"
        return len(found) > 4 and found[-1] == "RUNNING" and any(former.runs.glob(checkpoints))

    wait(is_half, "checkpoint of the fifth run")
    worker.send_signal(signal.SIGTERM)
    finish(worker)


def begin_every_key(former: Former) -> None:
    """Two studies that between them use every key of a study file, each after the first of two trials."""
    texts = {"every-key.toml": EVERY_KEY, "chosen-backbone.toml": CHOSEN_BACKBONE}
    for file, text in texts.items():
        (former.place / file).write_text(text.format(trials=1))
    for file in texts:
        finish(former.worker(file))
    for file, text in texts.items():
        (former.place / file).write_text(text.format(trials=2))


# What the former program comes to


def ends(former: Former, name: str) -> list[dict[str, Any]]:
    """The fields that are the same where a later version has gone on."""
    return [
        {
            "number": trial.number,
            "state": trial.state.name,
            "value": trial.value,
            "params": trial.params,
            "epochs": len(trial.intermediate_values),
        }
        for trial in former.trials(name)
    ]


def gone_on(former: Former, scratch: Path, *, file: str) -> Former:
    """A copy in `scratch`, in which `tlopt run` has gone on to the end."""
    shutil.copytree(former.place, scratch, symlinks=True)
    runs = scratch / former.runs.relative_to(former.place)
    copy = Former(former.checkout, scratch, runs, sqlite_url(runs.parent))
    copy.run("run", file, "--workers", "1", "--runs", str(runs), "--output", str(runs.parent / "export"))
    return copy


def predictions(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV that `tlopt predict` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def dump(server: Server, database: str, binaries: Path) -> str:
    """The database as SQL that any client and any PostgreSQL of the last years can run."""
    options = ["--inserts", "--no-owner", "--no-privileges", "--dbname", server.url(database)]
    said = subprocess.run([binaries / "pg_dump", *options], check=True, capture_output=True, text=True).stdout
    # settings of the newest version, commands of psql, comments
    left_out = ("SET ", "\\", "--", "SELECT pg_catalog.set_config")
    return "".join(
        line for line in said.splitlines(keepends=True) if line.strip() and not line.startswith(left_out)
    )


def sqlite_url(folder: Path) -> str:
    """The URL of the database in `folder`."""
    return f"sqlite:///{folder.absolute()}/tlopt.db"


def settle(folder: Path) -> None:
    """Bring each SQLite database below `folder` into its one file; remove what is of this moment only."""
    for path in folder.rglob("tlopt.db"):
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for pattern in ("tlopt.db-*", "*.lock", "artifacts", "pictures"):
        for path in list(folder.rglob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def thin_out(folder: Path) -> None:
    """Remove what a study can do without: the older of two checkpoints, and some files of the confirmation.

    Its interrupted run begins again, and one of its networks is trained again for the test.
    """
    for trial in folder.glob("*/runs/checkpoints/*/*"):
        kept = 0 if trial.parent.name.endswith(".confirm") else 1
        files = sorted(trial.glob("*.ckpt"))
        for path in files[: len(files) - kept]:
            path.unlink()
    (folder / "half-confirmed/runs/half-confirmed.confirm/weights/candidate-1-seed0.safetensors").unlink()


def make(checkout: Path, work: Path) -> Mapping[str, Any]:
    """Fill `work`/former; returns what goes to `expected.json`."""
    place = work / "former"
    draw_images(place / "images")
    write_weights(place / "weights.safetensors")

    def on_sqlite(folder: str) -> Former:
        (place / folder).mkdir()
        return Former(checkout, place, place / folder / "runs", sqlite_url(place / folder))

    searching = on_sqlite("interrupted")
    numbers = interrupt_search(searching)
    confirming = on_sqlite("half-confirmed")
    interrupt_confirmation(confirming)
    begin_every_key(on_sqlite("every-key"))
    binaries = find_binaries()
    assert binaries is not None, "the fixtures need PostgreSQL"
    with running(binaries) as server, server.database() as database:
        on_server = Former(checkout, place, place / "postgres/runs", server.url(database))
        interrupt_search(on_server)
        assert ends(on_server, "interrupted") == ends(searching, "interrupted")
        (place / "postgres/interrupted.sql").write_text(dump(server, database, binaries))

    search_end = gone_on(searching, work / "scratch-a", file="interrupted.toml")
    confirm_end = gone_on(confirming, work / "scratch-b", file="half-confirmed.toml")
    finished = place / "finished"
    finished.mkdir()
    for name in ("tlopt.db", "export"):
        source = work / "scratch-b/half-confirmed" / name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, finished / name)
    confirm_end.run("predict", "half-confirmed/export", "images", "--output", "labels.csv")
    config = confirm_end.run("export", "half-confirmed", "--config")
    settle(place)
    thin_out(place)
    return {
        "interrupted": {**numbers, "trials": ends(search_end, "interrupted")},
        "half-confirmed": {
            "trials": ends(confirm_end, "half-confirmed"),
            "runs": ends(confirm_end, "half-confirmed.confirm"),
            "result": json.loads((finished / "export/result.json").read_text()),
            "config": config,
        },
        "predictions": predictions(work / "scratch-b/labels.csv"),
    }


def main() -> None:
    checkout, to = Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="tlopt-former-", dir="/tmp") as work:
        expected = make(checkout, Path(work))
        to.mkdir(exist_ok=True)
        (to / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")
        with tarfile.open(to / "former.tar.xz", "w:xz", preset=9) as archive:
            archive.add(Path(work) / "former", arcname="former")


if __name__ == "__main__":
    main()
