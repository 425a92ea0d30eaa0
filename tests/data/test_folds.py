"""Cross-validation: every image is in the validation part of one fold, drawn or given."""

import shutil

import numpy as np
import pytest
from pictures import SEED, save, spec

from tlopt.data import load
from tlopt.errors import DataError


def loaded(source, **changes):
    return load.load_data(spec(source, **changes), seed=SEED)


@pytest.mark.parametrize("n", [2, 5])
def test_every_image_validates_in_one_of_the_folds_with_its_classs_share(folder, n):
    data = loaded(folder(30, 15), folds=n, test_fraction=0.0)
    assert len(data.splits) == n
    assert sorted(np.concatenate([split.val for split in data.splits])) == list(range(45))
    for split in data.splits:
        assert [(data.labels[split.val] == label).sum() for label in (0, 1)] == pytest.approx(
            [30 / n, 15 / n], abs=1
        )
        assert not set(split.train) & set(split.val)


def test_test_images_are_in_no_fold(folder):
    data = loaded(folder(20, 20), folds=4)
    assert (data.n_test, sum(len(split.val) for split in data.splits)) == (8, 32)


def test_groups_stay_in_one_fold(tmp_path):
    for content in range(96):
        save(tmp_path / "x" / "ab"[content % 2] / f"p{content // 2 % 12}_{content}.png", content)
    data = loaded(tmp_path / "x", folds=3, group_pattern=r"/(p\d+)_", test_fraction=0.0)
    of = [image.group for image in data.images]
    homes = {}
    for fold, split in enumerate(data.splits):
        for i in split.val:
            homes.setdefault(of[i], set()).add(fold)
    assert all(len(found) == 1 for found in homes.values())
    assert [len(split.val) for split in data.splits] == pytest.approx([32] * 3, abs=8)


@pytest.fixture
def table(tmp_path):
    """Makes a table of 24 images with folds by a rule: `table(lambda i: ...)`."""

    def make(fold_of):
        lines = ["file,label,fold"]
        for index in range(24):
            save(tmp_path / f"{index}.png", index)
            lines.append(f"{index}.png,{'ab'[index % 2]},{fold_of(index)}")
        path = tmp_path / "labels.csv"
        path.write_text("\n".join(lines))
        return path

    return make


def test_given_folds_are_the_splits(table):
    data = loaded(table(lambda i: i // 8), fold_column="fold", test_fraction=0.0)
    found = [{int(data.images[i].origin.path.stem) // 8 for i in split.val} for split in data.splits]
    assert found == [{0}, {1}, {2}]


def test_a_column_called_fold_is_not_taken_unasked(table):
    assert len(loaded(table(lambda i: i // 8)).splits) == 3
    assert not any("fold" in notice for notice in loaded(table(lambda i: i // 8)).notices)


def test_folds_are_part_of_the_fingerprint(table):
    first = loaded(table(lambda i: i // 8), fold_column="fold").fingerprint
    assert loaded(table(lambda i: i // 12), fold_column="fold").fingerprint != first


def test_copies_in_two_folds_validate_together(table, tmp_path):
    path = table(lambda i: i // 8)
    shutil.copy(tmp_path / "0.png", tmp_path / "20.png")
    data = loaded(path, fold_column="fold", test_fraction=0.0)
    names = [{data.images[i].origin.path.stem for i in split.val} for split in data.splits]
    assert {"0", "20"} <= names[0]


@pytest.mark.parametrize(
    ("fold_of", "words"),
    [
        (lambda i: 1, 'all images lie in the fold "1"'),
        (lambda i: i % 2, 'the fold "0" holds all images of the class "a"'),
        (lambda i: "" if i == 3 else i // 8, "1 row has no fold: line 5"),
    ],
)
def test_folds_that_cannot_be_are_refused(table, fold_of, words):
    with pytest.raises(DataError, match=words):
        loaded(table(fold_of), fold_column="fold", test_fraction=0.0)


def test_a_group_in_two_folds_is_named(table):
    with pytest.raises(DataError, match=r'the group "\d+" lies in the folds \d and \d'):
        loaded(table(lambda i: i // 8), fold_column="fold", group_pattern=r"(\d)\.png$", test_fraction=0.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"folds": 1}, "1 is not allowed: 0, or 2 to 20"),
        ({"folds": 3, "repeats": 2}, "repeats and folds both say"),
    ],
)
def test_keys_of_folds_that_cannot_be_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        spec("x", **changes)
