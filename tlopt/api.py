"""tlopt for programs and notebooks: the commands as functions of paths, with typed results.

Training runs in worker processes of its own, so a notebook can call these as they are.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tlopt import road, takeaway
from tlopt.results.verdict import Verdict
from tlopt.search.records import TrialRecord
from tlopt.session import open_session
from tlopt.spec import load

if TYPE_CHECKING:
    from tlopt.results.predict import Prediction
    from tlopt.training.fit import Epoch

__all__ = ["confirm", "export", "load", "predict", "run", "train", "trials"]


def run(
    path: str | Path, *, storage: str | None = None, n_workers: int = 0, runs: str | Path = "runs"
) -> Verdict:
    """Search, confirm and judge the study file `path`; the verdict on its best point and the defaults.

    Goes on where it stopped; a finished study is read from its database.

    Args:
        storage: the database's URL; default as for the commands.
        n_workers: local workers; 0 is one for each GPU, or for each core up to four.
        runs: folder for logs, pictures and weights.
    """
    session = open_session(path, storage_url=storage, runs=runs)
    bench = road.prepare(session)
    for _ in road.search(session, bench, n_workers=n_workers):
        pass
    for _ in road.confirm(session, bench, n_workers=n_workers):
        pass
    return road.judge(session, bench)


def confirm(
    path: str | Path, *, storage: str | None = None, n_workers: int = 0, runs: str | Path = "runs"
) -> Verdict:
    """Run the best points of a search again over seeds; the verdict. Arguments as for `run`."""
    session = open_session(path, storage_url=storage, runs=runs)
    bench = road.prepare(session)
    for _ in road.confirm(session, bench, n_workers=n_workers):
        pass
    return road.judge(session, bench)


def export(
    path: str | Path,
    folder: str | Path,
    *,
    storage: str | None = None,
    runs: str | Path = "runs",
    overwrite: bool = False,
    onnx: bool = False,
) -> Path:
    """Write a confirmed study's best point to `folder`; returns it."""
    session = open_session(path, storage_url=storage, runs=runs)
    bench = road.prepare(session)
    verdict = road.judge(session, bench)
    return takeaway.export(session, bench, verdict, Path(folder), overwrite=overwrite, onnx=onnx)


def trials(path: str | Path, *, storage: str | None = None) -> list[TrialRecord]:
    """Every trial of a study, by number."""
    opened = open_session(path, storage_url=storage).optuna_study()
    return [TrialRecord.from_frozen(trial) for trial in opened.get_trials(deepcopy=False)]


def train(
    config: str | Path, folder: str | Path, *, device: str = "auto", overwrite: bool = False
) -> list["Epoch"]:
    """Train an exported config on training and validation images and export it to `folder`; its epochs."""
    return list(takeaway.train(Path(config), Path(folder), device=device, overwrite=overwrite))


def predict(
    folder: str | Path, images: Sequence[str | Path], *, device: str = "auto"
) -> Iterator["Prediction"]:
    """What the export in `folder` makes of each image file, in order; folders are searched for images."""
    return takeaway.predict(Path(folder), [Path(image) for image in images], device=device)
