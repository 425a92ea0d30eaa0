"""A worker caches what its study can reuse, within the bound, without changing results."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from tlopt.errors import SpecError
from tlopt.trial.feature_policy import wanted_depths
from tlopt.trial.workspace import Workspace

N_BLOCKS = 9


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def place(
    tmp_path: Path, study_text: Callable[..., str], workshop: tiny.Workshop
) -> Callable[..., tiny.Place]:
    """A place with fixed views and a workspace of its own; keywords as for `study_text`."""

    def make(*, name: str, views: int = 2, flip: str = "true", **changes: Any) -> tiny.Place:
        text = tiny.lighter(study_text(name=f"{tmp_path.name}-{name}", epochs=3, **changes))
        shop = replace(workshop, workspace=workshop.workspace.on_device(torch.device("cpu")))
        data = f"[data]\nviews = {views}\nflip = {flip}"
        return tiny.place(text.replace("[data]", data), shop, tmp_path / "runs")

    return make


def values(place: tiny.Place) -> list[dict[int, float]]:
    return [trial.intermediate_values for trial in place.trials]


def kept(cache: Path) -> set[str]:
    """Names of the views of which something is kept."""
    return {path.name.partition("-")[0].removesuffix(".rows") for path in cache.rglob("block*/*.rows")}


@pytest.mark.parametrize(
    ("search", "wanted"),
    [
        ("freeze_depth = 4", {4, 9}),
        ("freeze_depth = 0", {9}),
        ("freeze_depth = { int = [3, 6] }", {3, 4, 5, 6, 9}),
        ("freeze_depth = { uniform = [0.0, 1.0] }", set(range(1, 10))),
        ("freeze_depth = { choice = [0, 7] }", {7, 9}),
        ("transfer_depth = { int = [5, 7] }", {9}),
        ("transfer_depth = { int = [5, 7] }\nfreeze_depth = 1.0", {5, 6, 7, 9}),
        ("transfer_depth = { int = [5, 7] }\nfreeze_depth = { int = [2, 6] }", {2, 3, 4, 5, 6, 9}),
        ("transfer_depth = { int = [5, 7] }\nhead_first_epochs = 2", {5, 6, 7, 9}),
        ("transfer_depth = { int = [5, 7] }\nhead_first_epochs = { int = [0, 2] }", {5, 6, 7, 9}),
    ],
)
def test_blocks_are_wanted_that_a_trial_may_be_cut_at(search: str, wanted: set[int]) -> None:
    assert wanted_depths(tiny.study(search, backbone='"small"'), N_BLOCKS) == wanted


def test_trials_are_the_same_with_a_cold_a_warm_and_no_cache(
    place: Callable[..., tiny.Place], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cold, warm, without = (place(name=name) for name in ("cold", "warm", "without"))

    cold.work()
    assert kept(cache) == {"center", "view0", "view1"}
    warm.work()
    monkeypatch.setenv("TLOPT_CACHE_GB_MAX", "0")
    without.work()

    assert values(cold) == values(without)
    assert values(warm) == values(without)


def test_views_of_a_few_strengths_are_all_kept(place: Callable[..., tiny.Place], cache: Path) -> None:
    place(name="few", search="augmentation = { choice = [0.2, 0.5] }").work()

    names = {path.name for path in cache.rglob("block*/*.rows")}
    assert {name.split("-")[3] for name in names if name.startswith("view")} == {"0.2", "0.5"}


@pytest.mark.parametrize(
    ("views", "search"), [(0, ""), (2, "augmentation = { uniform = [0.0, 1.0] }")], ids=["new", "searched"]
)
def test_views_that_do_not_come_again_are_not_kept(
    place: Callable[..., tiny.Place], cache: Path, views: int, search: str
) -> None:
    place(name="new", views=views, search=search, trials=2).work()

    assert kept(cache) == {"center"}


@pytest.mark.parametrize("flip", ["true", "false"])
def test_middles_of_training_images_are_planned_where_they_are_what_training_sees(
    place: Callable[..., tiny.Place], cache: Path, flip: str
) -> None:
    search = "augmentation = 0.0\nfreeze_depth = 9"
    there = place(name=flip, views=0, search=search, flip=flip, trials=2)
    there.work()

    data, (store,) = there.workspace.data, there.workspace.feature_stores
    assert store is not None
    n_seen = len(data.ever_val if flip == "true" else data.images)
    assert {int(kept.known.sum()) for kept in store._open.values()} == {n_seen}
    (folder,) = (cache / "features").glob("*/")
    taken = sum(path.stat().st_blocks * 512 for path in folder.rglob("*.rows"))
    assert 0 < taken <= int((folder / "planned_bytes").read_text())


def test_studies_that_see_other_views_have_folders_of_their_own(
    place: Callable[..., tiny.Place], cache: Path
) -> None:
    one, another = place(name="one", trials=1), place(name="another", trials=1, seed=8)

    one.work()
    another.work()
    place(name="again", trials=1).work()

    assert len(list((cache / "features").glob("*/about.txt"))) == 2


def test_where_the_cache_cannot_be_written_nothing_is_kept_and_trials_run(
    place: Callable[..., tiny.Place], cache: Path
) -> None:
    cache.mkdir()
    (cache / "features").touch()  # no folder can be made here
    there = place(name="there", trials=1)

    there.work()

    assert [trial.state.name for trial in there.trials] == ["COMPLETE"]


def test_a_full_disk_is_said_in_the_trial_and_costs_nothing_else(
    place: Callable[..., tiny.Place], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    there, reference = place(name="full", trials=2), place(name="reference", trials=2)
    reference.work()

    def refuse(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", refuse)
    monkeypatch.setenv("TLOPT_CACHE", str(cache / "another"))
    there.work()

    assert values(there) == values(reference)
    notes = [note for trial in there.trials for note in trial.user_attrs.get("tlopt:notes", ())]
    assert notes
    assert set(notes) == {
        f"the cache {cache / 'another'} cannot be written (No space left on device): free disk space"
        " there, or set TLOPT_CACHE to another folder"
    }


def test_a_wrong_bound_is_said_before_any_trial(
    study_text: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TLOPT_CACHE_GB_MAX", "plenty")

    with pytest.raises(SpecError, match="plenty"):
        Workspace.open(tiny.spec.loads(study_text(), "x.toml"), torch.device("cpu"))
