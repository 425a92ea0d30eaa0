"""A whole study on images so easy that no trial makes a mistake."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import optuna_dashboard
import pytest
from optuna.trial import TrialState
from PIL import Image
from service import WAIT_SECONDS, Service
from service import make_service as make_service

from tlopt.storage.attributes import NOTES
from tlopt.storage.studies import open_storage

pytestmark = pytest.mark.slow

COLOURS = {"red": (230, 30, 30), "blue": (30, 30, 230)}


@pytest.fixture
def easy_images(tmp_path: Path) -> Path:
    """Two classes of 20 images, each of one colour with a little noise."""
    random = np.random.default_rng(3)
    for name, colour in COLOURS.items():
        folder = tmp_path / "easy" / name
        folder.mkdir(parents=True)
        for index in range(20):
            pixels = np.array(colour) + random.integers(-9, 10, (36, 36, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index:02}.png")
    return tmp_path / "easy"


def pictures(here: Service, number: int) -> set[str]:
    store = open_storage(here.url)
    trial = here.frozen()[number]
    return {each.filename for each in optuna.artifacts.get_all_artifact_meta(trial, storage=store)}


STUDY = """
name = "easy"
seed = 7
[data]
source = "{images}"
repeats = 1
[model]
backbone = "resnet18"
weights = "none"
[budget]
trials = 3
epochs = 2
[search]
resolution = 32
batch_size = 4
augmentation = 0.0
lr = {{ log = [1e-3, 2e-3] }}
[confirm]
points = 1
seeds = 3
"""


def test_a_study_without_one_mistake_is_searched_confirmed_exported_and_reported(
    service: Callable[..., Service], easy_images: Path
) -> None:
    here = service()
    here.file.write_text(STUDY.format(images=easy_images))

    status, _, errors = here.start("run", "--workers", "1").end(3 * WAIT_SECONDS)

    assert status == 0, errors
    assert "Traceback" not in errors
    trials = here.frozen()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3
    first = trials[0]
    assert first.value == 1.0, "the images are meant to be told apart without a mistake"
    assert NOTES not in first.user_attrs
    assert pictures(here, 0) == {"learning_curves.png", "confusion.png"}
    export = here.folder / "exports" / here.name
    verdict = json.loads((export / "result.json").read_text())["verdict"]
    assert 1.0 in {row["accuracy"] for each in verdict["candidates"] for row in each["val"]}
    assert (export / "README.md").is_file()
    opened = optuna.load_study(study_name=here.name, storage=open_storage(here.url))
    assert "100.0 %" in optuna_dashboard.get_note(opened)

    status, _, errors = here.launch(
        [sys.executable, "-m", "tlopt", "report", str(here.file), "report.html"], (), in_runs=False
    ).end(WAIT_SECONDS)

    assert status == 0, errors
    assert "100.0 %" in (here.folder / "report.html").read_text()
