"""Keys that matter stand out from chance, keys that never varied have no share, and few trials are noted."""

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from tlopt.analysis import importance as importances
from tlopt.analysis.importance import Importance, importance

DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "depth": IntDistribution(0, 9),
    "lr": FloatDistribution(1e-5, 1.0, log=True),
    "mixup": FloatDistribution(0.0, 1.0),
    "optimizer": CategoricalDistribution(("sgd", "adamw")),
}


def a_trial(value: float | None, *, pruned: bool = False, **params: object) -> FrozenTrial:
    state = TrialState.PRUNED if pruned else TrialState.COMPLETE
    return create_trial(
        state=state, value=value, params=params, distributions={key: DISTRIBUTIONS[key] for key in params}
    )


def searched(n: int, *, noise: bool = False, pruned_every: int = 0, **more: object) -> list[FrozenTrial]:
    """Trials whose value follows their depth, or nothing at all."""
    random = np.random.default_rng(5)
    rows = []
    for index in range(n):
        depth = int(random.integers(10))
        value = random.random() if noise else depth / 10 + random.random() / 100
        pruned = bool(pruned_every) and index % pruned_every == 1
        # a pruned trial's last value is of another epoch: here always the highest of all
        rows.append(
            a_trial(
                2.0 if pruned else value, pruned=pruned, depth=depth, lr=10 ** -(4 * random.random()), **more
            )
        )
    return rows


def shares(found: Importance) -> dict[str, float]:
    return {row.key: row.share for row in found.shares}


def test_the_key_that_decides_comes_first_and_stands_out() -> None:
    found = importance(searched(60), "maximize")

    assert found.shares[0].key == "depth"
    assert found.shares[0].stands_out
    assert not found.shares[1].stands_out
    assert sum(shares(found).values()) == pytest.approx(1)


def test_an_infeasible_trial_is_never_among_the_best() -> None:
    ended = searched(60)
    for trial in ended[::3]:  # at depth 0, and the best values of all
        trial.value, trial.params["depth"] = 5.0, 0
        trial.set_constraint("flops", 1.0)

    assert importance(ended, "maximize").shares == _without_constraints(ended).shares
    assert "40 complete and 20 pruned or infeasible: what" in importance(ended, "maximize").note


def _without_constraints(ended: list[FrozenTrial]) -> Importance:
    """The importance where those trials are pruned."""
    pruned = [a_trial(t.value, pruned=bool(t.constraints), **t.params) for t in ended]
    return importance(pruned, "maximize")


def test_a_minimised_value_is_read_the_other_way_round() -> None:
    found = importance(searched(60), "minimize")

    assert found.shares[0].key == "depth"
    assert found.shares[0].stands_out


@pytest.mark.parametrize("seed", range(3))
def test_of_noise_no_key_stands_out(seed: int) -> None:
    random = np.random.default_rng(seed)
    trials = [
        a_trial(random.random(), depth=int(random.integers(10)), mixup=random.random()) for _ in range(40)
    ]

    assert not any(row.stands_out for row in importance(trials, "maximize").shares)


def test_a_key_that_never_varied_has_no_share_and_is_named() -> None:
    found = importance(searched(40, mixup=0.5), "maximize")

    assert set(shares(found)) == {"depth", "lr"}
    assert "one value in all trials: mixup" in found.note


def test_only_constant_keys_have_no_importance() -> None:
    trials = [a_trial(index / 20, mixup=0.5) for index in range(20)]

    assert importance(trials, "maximize") == Importance(shares=(), note="No key varied among these trials.")


def test_a_key_that_a_third_of_the_trials_lack_has_a_share() -> None:
    whole = searched(40, optimizer="sgd")
    trials = [
        a_trial(t.value, **{k: v for k, v in t.params.items() if k != "lr" or index % 3})
        for index, t in enumerate(whole)
    ]

    assert "lr" in shares(importance(trials, "maximize"))


def test_sixteen_trials_some_of_them_pruned_are_enough_and_said_to_be_few() -> None:
    found = importance(searched(16, pruned_every=3), "maximize")

    assert set(shares(found)) == {"depth", "lr"}
    assert found.note.startswith(
        "PED-ANOVA over 16 trials, 11 complete and 5 pruned: what sets the best 5 apart"
    )
    assert "With 16 trials only a strong effect shows." in found.note


def test_a_pruned_trial_is_never_among_the_best() -> None:
    """Their last values are the highest here, at depths of every kind."""
    found = importance(searched(90, pruned_every=3), "maximize")

    assert found.shares[0].key == "depth"
    assert found.shares[0].stands_out


def test_few_trials_and_equal_values_have_no_importance() -> None:
    equal = [a_trial(0.5, lr=0.01 * (1 + index)) for index in range(20)]

    assert importance(searched(9), "maximize").note.startswith("9 complete and 0 pruned trials: it takes 10")
    assert importance(searched(12, pruned_every=1), "maximize").shares
    assert "same value" in importance(equal, "maximize").note
    assert importance(equal, "maximize").shares == ()


def test_mostly_pruned_trials_have_no_importance() -> None:
    trials = [a_trial(0.5, pruned=index >= 4, lr=0.01 * (1 + index)) for index in range(20)]

    assert importance(trials, "maximize").note.startswith("4 complete and 16 pruned trials")


def test_the_importance_of_many_trials_is_that_of_some_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importances, "TRIALS_MAX", 15)

    assert importance(searched(60), "maximize").note.startswith("PED-ANOVA over 15 of 60 trials")


def test_optuna_is_left_as_it_was() -> None:
    before = optuna.logging.get_verbosity()

    importance(searched(12), "maximize")

    assert optuna.logging.get_verbosity() == before
