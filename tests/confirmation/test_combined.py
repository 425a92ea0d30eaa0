"""Runs are combined only where a mean of them is a network, and refusals say why."""

from dataclasses import replace
from typing import Any

import pytest
from finished import make_point, make_row, make_verdict

from tlopt.confirmation.combined import ensemble_members, soup_members
from tlopt.confirmation.verdict import Verdict
from tlopt.errors import NotReady, SpecError
from tlopt.model.build import n_blocks
from tlopt.spec.default_names import PLAIN_LABEL

BLOCKS = n_blocks("resnet18")


def transferred(**changes: Any) -> Any:
    return make_point(**{"transfer_depth": BLOCKS, **changes})


def verdict_of(*points: Any, n_splits: int = 1) -> Verdict:
    """Candidates trial 0, 1, ..., each with two runs; the first is chosen."""
    rows = [
        make_row(f"trial {i}", (0.9 - i / 100, 0.8 - i / 100), point=each, number=i)
        for i, each in enumerate(points)
    ]
    return replace(make_verdict(rows), n_splits=n_splits)


def keys(members: Any) -> list[tuple[int, int]]:
    return [(member.number, member.replicate) for member in members]


def test_a_soup_starts_from_the_exported_run_and_tries_the_others_best_first() -> None:
    verdict = verdict_of(transferred(), transferred(lr=0.2))

    first, others, left_out = soup_members(verdict)

    assert keys([first]) == [(0, 0)]
    assert keys(others) == [(1, 0), (0, 1), (1, 1)]
    assert left_out == ()
    assert keys(soup_members(verdict, n_points=1)[1]) == [(0, 1)]


def test_a_log_loss_is_better_where_it_is_lower() -> None:
    rows = [make_row("trial 0", (0.5, 0.9, 0.7), point=transferred(), number=0)]

    first, others, _ = soup_members(make_verdict(rows, objective="log_loss"))

    assert keys([first, *others]) == [(0, 1), (0, 2), (0, 0)]


NEVER = {
    "linear": ({"classifier": "logistic"}, "a linear classifier on the features of a frozen network"),
    "fresh": ({"transfer_depth": BLOCKS - 2}, "its last 2 blocks began with other random weights"),
    "hidden": ({"head_layers": 1}, "the hidden layers of its head began with other random weights"),
}
WITH_THE_FIRST = {
    "backbone": ({"backbone": "resnet34", "transfer_depth": 18}, "its network is resnet34, not resnet18"),
    "resolution": ({"resolution": 64}, "it was trained at 64 pixels, not at 32"),
    "dropout": ({"head_dropout": 0.5}, "its head has a dropout layer, unlike the other"),
}


@pytest.mark.parametrize(("changes", "why"), NEVER.values(), ids=NEVER)
def test_a_chosen_point_without_a_mean_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(SpecError, match=f"the chosen point, trial 0, makes no soup: .*{why}"):
        soup_members(verdict_of(transferred(**changes), transferred()))


@pytest.mark.parametrize(("changes", "why"), (NEVER | WITH_THE_FIRST).values(), ids=NEVER | WITH_THE_FIRST)
def test_another_point_that_does_not_match_is_left_out_with_its_reason(
    changes: dict[str, Any], why: str
) -> None:
    _, others, left_out = soup_members(verdict_of(transferred(), transferred(**changes)))

    assert keys(others) == [(0, 1)]
    assert len(left_out) == 2
    assert all(why in line for line in left_out)
    assert left_out[1].startswith("trial 1, seed 2 of the confirmation: ")


def test_runs_of_another_split_are_left_out() -> None:
    _, others, left_out = soup_members(verdict_of(transferred(), transferred(lr=0.2), n_splits=2))

    assert keys(others) == [(1, 0)]
    assert [line.rpartition(": ")[2] for line in left_out] == [
        "it was trained on some of the images that validate the soup"
    ] * 2


def test_a_soup_of_a_single_run_is_refused() -> None:
    verdict = verdict_of(transferred(), transferred(resolution=64), n_splits=2)

    with pytest.raises(SpecError, match=r"no run can be averaged with trial 0, seed 1 .*: trial 0, seed 2"):
        soup_members(verdict)


def test_an_ensemble_has_the_runs_of_the_chosen_point_the_exported_one_first() -> None:
    rows = [
        make_row("trial 3", (0.7, 0.9), point=make_point(classifier="svm"), number=3),
        make_row(PLAIN_LABEL, (0.6, 0.7), point=make_point(), number=-1),
    ]

    assert keys(ensemble_members(make_verdict(rows))) == [(3, 1), (3, 0)]
    assert keys(ensemble_members(make_verdict(rows), n_points=2)) == [(3, 1), (3, 0), (-1, 0), (-1, 1)]


def test_an_ensemble_of_a_single_run_is_refused() -> None:
    with pytest.raises(NotReady, match="an ensemble needs two; take more points with --points"):
        ensemble_members(make_verdict([make_row("trial 0", (0.9,), point=transferred(), number=0)]))


@pytest.mark.parametrize("members", [soup_members, ensemble_members])
def test_without_a_value_there_is_nothing_to_combine(members: Any) -> None:
    with pytest.raises(NotReady, match="no candidate of the confirmation completed"):
        members(make_verdict([make_row("trial 0", (), point=transferred(), number=0)]))
