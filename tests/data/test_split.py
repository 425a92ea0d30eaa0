"""Images are divided into training, validation and held-out ones."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import image, spec

from tlopt.data.split import divide, subset
from tlopt.errors import DataError

NAMES = ("a", "b", "c")


def images_of(counts: list[int], **options) -> list:
    """`counts[label]` different images of each class."""
    return [
        image(label, 1000 * label + index, **options)
        for label, count in enumerate(counts)
        for index in range(count)
    ]


def division(images, *, seed=0, **changes):
    return divide(
        images, spec("x", **changes), seed=seed, class_names=NAMES[: 1 + max(i.label for i in images)]
    )


def digests(images) -> list[str]:
    return [one.digest for one in images]


@st.composite
def image_sets(draw):
    """Three classes of 3 to 40 different images, some of them up to three times."""
    images = images_of([draw(st.integers(3, 40)) for _ in NAMES])
    copies = draw(st.lists(st.sampled_from(images), max_size=10))
    return images + copies


fractions = st.sampled_from([0.05, 0.2, 0.4])


@given(image_sets(), fractions, fractions, st.integers(0, 5))
def test_every_image_is_in_exactly_one_place(images, val, test, seed):
    found = division(images, val_fraction=val, test_fraction=test, seed=seed)
    assert sorted(digests([*found.trainval, *found.test])) == sorted(digests(images))
    for split in found.splits:
        assert sorted([*split.train, *split.val]) == list(range(len(found.trainval)))
        assert sorted(split.train) == list(split.train)
        assert sorted(split.val) == list(split.val)


@given(image_sets(), fractions, fractions, st.integers(0, 5))
def test_every_class_is_in_every_place(images, val, test, seed):
    found = division(images, val_fraction=val, test_fraction=test, seed=seed)
    assert {one.label for one in found.test} == {0, 1, 2}
    for split in found.splits:
        for part in (split.train, split.val):
            assert {found.trainval[i].label for i in part} == {0, 1, 2}


@given(image_sets(), st.randoms(use_true_random=False), st.integers(0, 5))
def test_the_order_of_the_files_does_not_matter(images, random, seed):
    shuffled = random.sample(images, len(images))
    one, other = division(images, seed=seed), division(shuffled, seed=seed)
    assert digests(one.trainval) == digests(other.trainval)
    assert digests(one.test) == digests(other.test)
    assert all((s.val == t.val).all() for s, t in zip(one.splits, other.splits, strict=True))


@given(image_sets(), st.integers(0, 5))
def test_copies_of_an_image_are_in_one_place(images, seed):
    found = division(images, seed=seed)
    assert not set(digests(found.trainval)) & set(digests(found.test))
    for split in found.splits:
        train, val = ({found.trainval[i].digest for i in part} for part in (split.train, split.val))
        assert not train & val


def test_the_shares_of_every_class_are_exact():
    found = division(images_of([100, 50, 10]), val_fraction=0.2, test_fraction=0.1)
    (split, *_) = found.splits
    assert Counter(one.label for one in found.test) == {0: 10, 1: 5, 2: 1}
    assert Counter(found.trainval[i].label for i in split.val) == {0: 20, 1: 10, 2: 2}


def test_three_images_a_class_are_enough_for_the_largest_shares():
    found = division(images_of([3, 3]), val_fraction=0.5, test_fraction=0.4)
    assert [(len(found.test), len(s.val), len(s.train)) for s in found.splits] == [(2, 2, 2)] * 3


def test_a_large_group_of_copies_does_not_fill_val():
    images = [*images_of([20, 20]), *[image(0, 5)] * 30]
    found = division(images, test_fraction=0)
    assert all((split.val < 50).sum() == 10 for split in found.splits)


def test_a_seed_gives_one_division_and_another_seed_another():
    images = images_of([50, 50])
    assert digests(division(images, seed=1).test) == digests(division(images, seed=1).test)
    assert digests(division(images, seed=1).test) != digests(division(images, seed=2).test)


def test_repeats_share_the_test_images_and_differ_in_val():
    found = division(images_of([50, 50]), repeats=4)
    assert len({tuple(split.val) for split in found.splits}) == 4


@pytest.mark.parametrize(("a_class", "repeats"), [(249, 3), (250, 1)])
def test_under_500_images_there_are_three_repeats_by_default(a_class, repeats):
    assert len(division(images_of([a_class, a_class]), test_fraction=0).splits) == repeats


def test_a_confirmation_may_have_splits_of_its_own():
    images = images_of([20, 20])
    plain, found = division(images, repeats=2), division(images, repeats=2, confirm_splits=3)
    parts = [tuple(split.val) for split in (*found.splits, *found.confirm_splits)]
    assert parts[:2] == [tuple(split.val) for split in plain.splits]
    assert (len(found.confirm_splits), len(set(parts)), {len(part) for part in parts}) == (
        3,
        5,
        {len(parts[0])},
    )
    for split in found.confirm_splits:
        assert sorted([*split.train, *split.val]) == list(range(len(found.trainval)))
        assert {found.trainval[i].label for i in split.val} == {0, 1}
    assert division(images, folds=4, confirm_splits=3).confirm_splits == ()
    own = [*images_of([20, 20]), image(0, 7000, split="val"), image(1, 7001, split="val")]
    assert division(own, confirm_splits=3).confirm_splits == ()


def test_the_source_s_own_splits_are_kept():
    parts = {split: images_of([4, 4], split=split) for split in ("train", "val", "test")}
    parts = {
        split: [image(one.label, int(one.digest, 16) + 100 * i, split=split) for one in part]
        for i, (split, part) in enumerate(parts.items())
    }
    found = division([one for part in parts.values() for one in part], repeats=5)
    (split,) = found.splits
    assert sorted(digests(found.test)) == sorted(digests(parts["test"]))
    assert sorted(found.trainval[i].digest for i in split.val) == sorted(digests(parts["val"]))


def test_beside_the_source_s_own_val_the_test_images_come_from_train():
    train = images_of([10, 10], split="train")
    val = [image(one.label, int(one.digest, 16) + 100, split="val") for one in train]
    found = division([*train, *val], test_fraction=0.2)
    assert Counter((one.label, one.split) for one in found.test) == {(0, "train"): 2, (1, "train"): 2}
    assert len(found.splits[0].val) == 20


def test_a_test_fraction_of_zero_locks_nothing_away():
    assert division(images_of([5, 5]), test_fraction=0).test == ()


@pytest.mark.parametrize(("test_fraction", "enough"), [(0.2, 3), (0.0, 2)])
def test_a_class_with_too_few_images_is_named(test_fraction, enough):
    division(images_of([9, enough]), test_fraction=test_fraction)
    with pytest.raises(
        DataError, match=f'"b" has too few images: {enough - 1} different in train of {enough}'
    ):
        division(images_of([9, enough - 1]), test_fraction=test_fraction)


def test_copies_do_not_make_a_class_large_enough():
    with pytest.raises(DataError, match='"b" has too few images: 1 different'):
        division([*images_of([9]), *[image(1, 5000)] * 9])


@given(image_sets(), st.integers(9, 60))
def test_a_subset_has_the_asked_size_and_all_classes(images, images_max):
    few = subset(images, images_max)
    assert len(few) == min(images_max, len(images))
    assert {one.label for one in few} == {0, 1, 2}


def test_beyond_the_least_a_subset_is_drawn_in_proportion():
    few = subset([*images_of([103, 53]), *[image(0, 9000 + i, split="test") for i in range(42)]], 46)
    assert Counter((one.label, one.split) for one in few) == {
        (0, "trainval"): 23,
        (1, "trainval"): 13,
        (0, "test"): 10,
    }


@given(image_sets(), st.randoms(use_true_random=False))
def test_a_subset_does_not_depend_on_order(images, random):
    shuffled = random.sample(images, len(images))
    assert sorted(digests(subset(images, 12))) == sorted(digests(subset(shuffled, 12)))


def test_without_images_max_all_images_are_used():
    assert len(subset(images_of([7, 8]), 0)) == 15


def test_a_subset_too_small_for_the_classes_is_refused():
    with pytest.raises(DataError, match="images_max = 5 is too few: these classes need 6"):
        subset(images_of([10, 10]), 5)


def test_the_division_is_the_same_on_every_machine():
    images = [image(label, 1000 * label + index) for label in (0, 1) for index in range(10)]
    found = division(images, seed=7)
    assert [int(one.digest, 16) for one in found.test] == [3, 5, 1005, 1009]
    assert [split.val.tolist() for split in found.splits] == [[6, 7, 12, 13], [3, 7, 11, 12], [3, 5, 9, 11]]
