"""Runs that train on some images, or with false labels: nothing else of the run sees it."""

import numpy as np
import pytest
import torch
from small_runs import Begin, MakePoint, changed, state

from tlopt.data.batches import Images
from tlopt.data.training_set import training_set
from tlopt.training.loop import Epoch, train_epochs

N_CLASSES = 3


def test_a_run_on_some_images_is_the_run_on_a_split_of_those(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray, val: np.ndarray
) -> None:
    some, alone = begin(point(train_images=10)), begin(point())
    part = training_set(train, images.labels, some.point, seed=some.seed, n_classes=N_CLASSES).indices

    one, other = list(train_epochs(some, images, train, val)), list(train_epochs(alone, images, part, val))

    assert len(part) == 10
    assert changed(state(some), state(alone)) == set()
    assert [epoch.val for epoch in one] == [epoch.val for epoch in other]


@pytest.mark.parametrize("classifier", ["network", "logistic"])
def test_false_labels_are_trained_on_and_not_validated_by(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray, val: np.ndarray, classifier: str
) -> None:
    torch.manual_seed(0)
    keys = {"classifier": classifier, "freeze_depth": 3, "epochs": 1} if classifier != "network" else {}
    clean, noisy = (begin(point(label_noise=noise, **keys)) for noise in (0.0, 0.6))

    (first, *_), (other, *_) = (list(train_epochs(run, images, train, val)) for run in (clean, noisy))

    assert isinstance(first, Epoch)
    assert changed(state(clean), state(noisy))
    assert first.confusion is not None
    assert other.confusion is not None
    assert (first.confusion.sum(axis=1) == other.confusion.sum(axis=1)).all()  # true validation classes
