"""A study's picture in optuna-dashboard: what depths, rates and pulls did, kept current in one place.

It is an artifact of the study. A newer picture takes the older one's place, so that a study has one file.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna

from tlopt.spec import Study
from tlopt.spec.folders import Folders
from tlopt.storage import optuna_private
from tlopt.storage.attributes import TrialRecord, best_first
from tlopt.system.atomic import replacing_file

FILE = "depth_and_regularisation.png"
TRIALS_MIN = 8  # complete ones; fewer points say nothing
KEYS = ("transfer_depth", "freeze_depth", "norm_depth", "l2_sp", "l2", "lr", "lr_ratio")
_EVERY_MIN = 10
_ARTIFACT = "artifacts:"


def is_due(number: int) -> bool:
    """Whether the end of trial `number` renews note and picture although it leads nothing.

    Every tenth does; of more than 320 only so many as come to 16 to 32 each time the trials double.
    """
    n = number + 1
    return n % max(_EVERY_MIN, 1 << max(n.bit_length() - 5, 0)) == 0


def refresh(optuna_study: optuna.Study, study: Study, folders: Folders) -> None:
    """Draw the complete trials anew and put the picture where the last one was; nothing for too few trials.

    Of several backbones it is the best trial's, since each has its own number of blocks.
    """
    trials = [TrialRecord.from_frozen(trial) for trial in optuna_study.get_trials(deepcopy=False)]
    best = [trial for trial in best_first(trials, study.direction) if trial.point]
    if best:
        backbone = (best[0].point or {}).get("backbone")
        best = [trial for trial in best if (trial.point or {}).get("backbone") == backbone]
    if len(best) >= TRIALS_MIN:
        file = _draw(best, study, folders.pictures / "study" / FILE)
        if file is not None:
            _keep(optuna_study, file, folders.artifacts)


def address(optuna_study: optuna.Study) -> str:
    """Where the dashboard has the picture, or ""."""
    found = _artifacts(optuna_study)
    return f"/artifacts/{optuna_private.study_id(optuna_study)}/{found[0]}" if found else ""


def _draw(best: Sequence[TrialRecord], study: Study, path: Path) -> Path | None:
    from tlopt.plots.effects import Panel, draw_dependences

    panels = []
    for key in KEYS:
        x = np.array([float((trial.point or {}).get(key, np.nan)) for trial in best])
        if np.isfinite(x).all() and len(np.unique(x)) > 1:
            log = study.is_log(key) and bool((x >= 0).all())
            panels.append(Panel(key + (", in blocks" if key.endswith("_depth") else ""), x, log))
    if not panels:
        return None
    title = f"{study.name}: {len(best)} complete trials" + (
        f" of {(best[0].point or {}).get('backbone')}" if len(study.model.backbones) > 1 else ""
    )
    return draw_dependences(
        path,
        panels=panels,
        values=np.array([trial.value for trial in best], dtype=np.float64),
        objective=study.objective,
        direction=study.direction,
        title=title,
    )


def _keep(optuna_study: optuna.Study, file: Path, folder: Path) -> None:
    """Put `file` in place of the picture that is there, or make it the first."""
    found = _artifacts(optuna_study)
    folder.mkdir(parents=True, exist_ok=True)
    if not found:
        store = optuna.artifacts.FileSystemArtifactStore(folder)
        optuna.artifacts.upload_artifact(
            artifact_store=store, file_path=str(file), study_or_trial=optuna_study
        )
    for artifact in found:  # two, where two workers were the first at once
        with replacing_file(folder / artifact) as part:
            shutil.copyfile(file, part)


def _artifacts(optuna_study: optuna.Study) -> list[str]:
    """The ids under which the picture is known; what was removed in the dashboard is null there."""
    storage = optuna_private.storage_of(optuna_study)
    attributes = storage.get_study_system_attrs(optuna_private.study_id(optuna_study))
    metas = [json.loads(value) for key, value in attributes.items() if key.startswith(_ARTIFACT)]
    return sorted(meta["artifact_id"] for meta in metas if meta is not None and meta["filename"] == FILE)
