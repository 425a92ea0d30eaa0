"""A study's figure in optuna-dashboard: values of trials by depth, learning rate and regularisation.

The figure is an artifact of the study. Each new one replaces the last, so that a study has one file.
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
from tlopt.storage.attributes import TrialRecord, best_first, records_of
from tlopt.system.atomic import replacing_file

FILE = "depth_and_regularisation.png"
TRIALS_MIN = 8  # complete trials; fewer show nothing
KEYS = ("transfer_depth", "freeze_depth", "norm_depth", "l2_sp", "l2", "lr", "lr_ratio")
_EVERY_MIN = 10


def is_due(number: int) -> bool:
    """Whether to update note and figure after trial `number`, even if it is not the best.

    True after every tenth trial; above 320 trials less often, 16 to 32 times while their number doubles.
    """
    n = number + 1
    return n % max(_EVERY_MIN, 1 << max(n.bit_length() - 5, 0)) == 0


def update_figure(optuna_study: optuna.Study, study: Study, folders: Folders) -> None:
    """Draw the complete trials and replace the last figure; do nothing for fewer than `TRIALS_MIN`.

    Linear classifiers are left out: the keys drawn do not affect them. With several backbones, only the
    trials with the best one's: numbers of blocks differ.
    """
    trials = records_of(optuna_study)
    best = [trial for trial in best_first(trials, study.direction) if trial.is_network]
    if best:
        backbone = (best[0].point or {}).get("backbone")
        best = [trial for trial in best if (trial.point or {}).get("backbone") == backbone]
    if len(best) >= TRIALS_MIN:
        file = _draw(best, study, folders.pictures / "study" / FILE)
        if file is not None:
            _store(optuna_study, file, folders.artifacts)


def address(optuna_study: optuna.Study) -> str:
    """The URL path of the figure in the dashboard, or ""."""
    found = _artifacts(optuna_study)
    return f"/artifacts/{optuna_private.study_id(optuna_study)}/{found[0]}" if found else ""


def _draw(best: Sequence[TrialRecord], study: Study, path: Path) -> Path | None:
    from tlopt.plots.effects import KeyPanel, draw_dependences

    panels = []
    for key in KEYS:
        x = np.array([float((trial.point or {}).get(key, np.nan)) for trial in best])
        if np.isfinite(x).all() and len(np.unique(x)) > 1:
            log = study.is_log(key) and bool((x >= 0).all())
            panels.append(KeyPanel(key + (", in blocks" if key.endswith("_depth") else ""), x, log))
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


def _store(optuna_study: optuna.Study, file: Path, folder: Path) -> None:
    """Replace the stored figure by `file`, or upload it as the first one."""
    found = _artifacts(optuna_study)
    folder.mkdir(parents=True, exist_ok=True)
    if not found:
        store = optuna.artifacts.FileSystemArtifactStore(folder)
        optuna.artifacts.upload_artifact(
            artifact_store=store, file_path=str(file), study_or_trial=optuna_study
        )
    for artifact in found:  # two, if two workers uploaded the first one at the same time
        with replacing_file(folder / artifact) as part:
            shutil.copyfile(file, part)


def _artifacts(optuna_study: optuna.Study) -> list[str]:
    """The artifact ids of the figure; artifacts that were removed in the dashboard are null."""
    storage = optuna_private.storage_of(optuna_study)
    attributes = storage.get_study_system_attrs(optuna_private.study_id(optuna_study))
    metas = [
        json.loads(value) for key, value in attributes.items() if key.startswith(optuna_private.ARTIFACT)
    ]
    return sorted(meta["artifact_id"] for meta in metas if meta is not None and meta["filename"] == FILE)
