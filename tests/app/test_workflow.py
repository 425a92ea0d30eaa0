"""Studies of earlier versions continue with their splits and odds; new ones have those of their images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlopt.app import workflow
from tlopt.app.handle import open_session
from tlopt.confirmation.evidence import ODDS_MIN
from tlopt.errors import DataError, SpecError, StudyChanged, WeightsError
from tlopt.spec.default_names import PARTLY_LABEL
from tlopt.storage import attributes

TEXT = """
name = "copies"
[data]
source = "{source}"
repeats = 1
{line}
[model]
backbone = "mobilenet_v3_small"
weights = "none"
[budget]
trials = 3
epochs = 2
[search]
resolution = 32
lr = {{ log = [1e-4, 1e-2] }}
"""


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes of eight images, each saved twice: equal pixels in files of different bytes."""
    monkeypatch.setenv("TLOPT_CACHE", str(tmp_path / "cache"))
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(8):
            picture = Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8))
            for suffix in ("png", "bmp"):
                picture.save(tmp_path / "images" / name / f"{index}.{suffix}")
    return tmp_path / "images"


def test_a_study_that_was_begun_when_only_equal_files_were_copies_goes_on(
    images: Path, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    files = {name: tmp_path / f"{name}.toml" for name in ("before", "now")}
    files["before"].write_text(TEXT.format(source=images, line='copies = "files"'))
    files["now"].write_text(TEXT.format(source=images, line=""))
    sessions = {name: open_session(file, storage_url=url) for name, file in files.items()}
    new = workflow.prepare(sessions["now"])
    begun = workflow.prepare(sessions["before"])
    assert new.fingerprints != begun.fingerprints
    workflow.begin(sessions["before"], begun)

    going_on = workflow.prepare(sessions["now"])

    assert going_on.fingerprints == begun.fingerprints
    assert (going_on.data.splits[0].val == begun.data.splits[0].val).all()
    assert going_on.study.data.copies == "files"
    workflow.begin(sessions["now"], going_on)


@pytest.mark.parametrize(
    ("line", "odds"),
    [
        ("", 6.0),  # six validation images
        ("confirm_splits = 2", 6.0),  # two of three seeds share one
        ("confirm_splits = 3", 2.0),
    ],
)
def test_the_odds_of_a_confirmation_are_those_of_its_images_and_stay(
    line: str, odds: float, images: Path, tmp_path: Path
) -> None:
    file = tmp_path / "odds.toml"
    file.write_text(TEXT.format(source=images, line=line))
    session = open_session(file, storage_url=f"sqlite:///{tmp_path}/studies.db")
    workspace = workflow.prepare(session)
    opened, plan = workflow.begin(session, workspace)
    trial = opened.ask()
    trial.set_user_attr(attributes.POINT, plan.draw(trial).point.as_dict())
    opened.tell(trial, 0.5)
    confirmation, _ = workflow.begin_confirm(session, workspace)
    assert confirmation.user_attrs[attributes.ODDS] == odds
    assert confirmation.user_attrs[attributes.PREFERRED] == PARTLY_LABEL

    confirmation.set_user_attr(attributes.ODDS, ODDS_MIN)  # as an earlier version began it
    assert workflow.begin_confirm(session, workspace)[0].user_attrs[attributes.ODDS] == ODDS_MIN


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("repeats = 1", "images_max = 1", "data.images_max = 1 is too few: these classes need 6"),
        ('source = "{source}"', 'source = "absent"', "data.source = 'absent': there is no such folder "),
        ('weights = "none"', 'weights = "absent.pth"', "model.weights: absent.pth: there is no such weights"),
        ('weights = "none"', 'weights = "IMAGENET9"', 'model.weights = "IMAGENET9": mobilenet_v3_small has '),
        ("mobilenet_v3_small", "mobilenet_v9", "model.backbone: 'mobilenet_v9' is not supported"),
        ("resolution = 32", "transfer_depth = 99", "search.transfer_depth: 99 is beyond the last block"),
    ],
)
def test_what_is_wrong_is_told_with_the_file_and_the_key(
    old: str, new: str, said: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("wrong.toml")
    assert old in TEXT
    file.write_text(TEXT.replace(old, new).format(source=images, line=""))

    with pytest.raises((SpecError, DataError, WeightsError)) as caught:
        workflow.prepare(open_session(file, storage_url=f"sqlite:///{tmp_path}/x.db", create=False))

    assert str(caught.value).startswith(f"wrong.toml: {said}")


def test_other_images_are_refused_as_ever(images: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    file = tmp_path / "study.toml"
    file.write_text(TEXT.format(source=images, line=""))
    session = open_session(file, storage_url=url)
    workflow.begin(session, workflow.prepare(session))
    (images / "a" / "0.png").unlink()
    workspace = workflow.prepare(session)
    with pytest.raises(StudyChanged, match="images: the study has"):
        workflow.begin(session, workspace)
