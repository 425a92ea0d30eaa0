"""Linear heads: planted directions, a folded standardisation, and sets too small to hold anything out."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from tlopt.model.linear_head import FIXED_C, GRIDS, LinearKind, Task, fit_linear_head

KINDS: tuple[LinearKind, ...] = ("logistic", "svm")


def planted(
    kind: LinearKind, *, n: int = 120, width: int = 40, distance: float = 2.0, n_classes: int = 3
) -> Task:
    """Class k lies `distance` standard deviations along feature k, on a mean and a scale of its own."""
    random = np.random.default_rng(3)
    labels = np.arange(n) % n_classes
    features = random.normal(size=(n, width))
    features[np.arange(n), labels] += distance
    return Task(
        kind=kind,
        features=features * random.uniform(0.01, 100, width) + random.uniform(-50, 50, width),
        labels=labels,
        units=np.arange(n),
        n_classes=n_classes,
        balanced=False,
        seed=5,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_it_finds_the_planted_directions(kind: LinearKind) -> None:
    task = planted(kind, n=600, distance=6.0)

    head = fit_linear_head(task)

    spread = task.features.std(axis=0)
    assert (head.weight * spread).argmax(axis=1).tolist() == [0, 1, 2]
    assert (head.logits(task.features).argmax(axis=1) == task.labels).mean() > 0.99
    assert head.fit.cv_accuracy == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_noise_takes_a_strong_penalty_and_is_predicted_by_chance(kind: LinearKind) -> None:
    task = planted(kind, distance=0.0, width=200)

    fit = fit_linear_head(task).fit

    if kind == "logistic":  # of an SVM the temperature does the same
        assert fit.c <= GRIDS[kind][4]
    assert fit.cv_accuracy == pytest.approx(1 / 3, abs=0.15)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("width", [40, 300])
def test_a_folded_standardisation_gives_scikit_learns_decisions(width: int, n_classes: int) -> None:
    task = planted("logistic", width=width, n_classes=n_classes)
    head = fit_linear_head(task)
    standardised = (task.features - task.features.mean(axis=0)) / task.features.std(axis=0)

    model = LogisticRegression(C=head.fit.c, max_iter=10_000, tol=1e-10).fit(standardised, task.labels)

    probabilities = np.exp(head.logits(task.features))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, model.predict_proba(standardised), atol=2e-3)


@pytest.mark.parametrize("width", [40, 300])
def test_an_svms_margins_are_scikit_learns_over_the_temperature(width: int) -> None:
    task = planted("svm", width=width)
    head = fit_linear_head(task)
    standardised = (task.features - task.features.mean(axis=0)) / task.features.std(axis=0)

    model = LinearSVC(C=head.fit.c, tol=1e-8, max_iter=100_000).fit(standardised, task.labels)

    margins = head.logits(task.features) * head.fit.temperature
    np.testing.assert_allclose(margins, model.decision_function(standardised), atol=2e-2)


def test_probabilities_of_an_svm_are_as_sure_as_it_is_right() -> None:
    task = planted("svm", n=900, distance=1.5, width=60)
    fitted = fit_linear_head(
        replace(task, features=task.features[:300], labels=task.labels[:300], units=np.arange(300))
    )

    logits = fitted.logits(task.features[300:])
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    right = (logits.argmax(axis=1) == task.labels[300:]).mean()
    assert probabilities.max(axis=1).mean() == pytest.approx(right, abs=0.08)


@pytest.mark.parametrize("kind", KINDS)
def test_one_image_a_class_takes_a_fixed_penalty_and_says_so(kind: LinearKind) -> None:
    head = fit_linear_head(planted(kind, n=3))

    assert (head.fit.c, head.fit.n_folds, head.fit.cv_accuracy) == (FIXED_C[kind], 0, None)
    assert "a single training image" in head.fit.note
    assert np.isfinite(head.weight).all()


@pytest.mark.parametrize("kind", KINDS)
def test_identical_rows_give_finite_and_equal_logits(kind: LinearKind) -> None:
    task = replace(planted(kind), features=np.full((120, 40), 0.1))

    logits = fit_linear_head(task).logits(np.full((2, 40), 0.1))

    np.testing.assert_allclose(logits - logits.mean(), 0, atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_groups_that_take_a_class_out_of_a_fold_leave_finite_logits(kind: LinearKind) -> None:
    task = planted(kind, n=30)
    units = np.where(task.labels == 2, np.where(np.arange(30) < 27, 100, 101), np.arange(30))

    head = fit_linear_head(replace(task, units=units))

    assert head.fit.n_folds == 2
    assert np.isfinite(head.weight).all()
    assert np.isfinite(head.bias).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_without_training_images_is_never_predicted(kind: LinearKind) -> None:
    task = replace(planted(kind), n_classes=4)

    logits = fit_linear_head(task).logits(task.features)

    assert (logits.argmax(axis=1) != 3).all()


def test_the_same_task_gives_the_same_bits() -> None:
    one, other = (fit_linear_head(planted("svm")) for _ in range(2))

    assert np.array_equal(one.weight, other.weight)
    assert np.array_equal(one.bias, other.bias)
