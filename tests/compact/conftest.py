"""A trained network of small images, its export, and what it is pruned by."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from finished import SEEDS
from trained_export import write_trained

from tlopt.compact.prune import Recipe
from tlopt.exports.read import load_network, read_export
from tlopt.model.network import Network
from tlopt.search.defaults import defaults
from tlopt.spec.point import Point
from tlopt.spec.trial_spec import recipe_point
from tlopt.training.loop import Epoch, train_epochs
from tlopt.training.run import Run
from tlopt.trial.workspace import Workspace


@pytest.fixture(scope="session")
def study_file(study_text: Callable[..., str]) -> str:
    return tiny.lighter(study_text(search='optimizer = "adamw"\nlr = 0.003\nl2_sp = 0.01'))


@pytest.fixture(scope="session")
def workspace(study_file: str, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    torch.set_num_threads(1)
    return tiny.workshop(study_file, f"sqlite:///{tmp_path_factory.mktemp('prune')}/tlopt.db").workspace


@pytest.fixture(scope="session")
def point(workspace: Workspace) -> Point:
    """Plain fine-tuning for three epochs, the first block frozen."""
    plain = defaults(workspace.study, workspace.facts)[1].point
    return replace(plain, epochs=3, freeze_depth=1, anchor_depth=plain.transfer_depth, l2_sp=0.01)


@pytest.fixture(scope="session")
def trained(workspace: Workspace, point: Point) -> tuple[Run, list[Epoch]]:
    split = workspace.data.splits[0]
    run = workspace.start_run(point, seed=SEEDS[0], train=split.train)
    return run, list(train_epochs(run, workspace.images(point), split.train, split.val))


@pytest.fixture(scope="session")
def export_folder(
    workspace: Workspace,
    trained: tuple[Run, list[Epoch]],
    study_file: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The export of the trained network. Not to be changed."""
    return write_trained(workspace, *trained, study_file, tmp_path_factory.mktemp("exports"))


@pytest.fixture(scope="session")
def recipe(workspace: Workspace, point: Point) -> Recipe:
    split = workspace.data.splits[0]
    return Recipe(
        point=recipe_point(point, epochs=1),
        images=workspace.images(point),
        train=split.train,
        val=split.val,
        pretrained=workspace.weights[point.backbone].state,
        n_classes=workspace.n_classes,
        seed=5,
        device=torch.device("cpu"),
    )


@pytest.fixture(scope="session")
def network(export_folder: Path) -> Network:
    return load_network(read_export(export_folder), torch.device("cpu"))
