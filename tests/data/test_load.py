"""Loading of `[data]`: checks, notices, and equal results on all machines."""

import shutil
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
from pictures import SEED, save, spec

from tlopt.data import digest, load
from tlopt.errors import DataError


def loaded(root, **changes):
    return load.load_data(spec(root, **changes), seed=SEED)


def test_labels_and_class_names_are_those_of_the_folders(folder):
    data = loaded(folder(6, 8), test_fraction=0.0)
    assert data.class_names == ("a", "b")
    assert (data.labels.dtype, data.labels.tolist()) == (np.int64, [0] * 6 + [1] * 8)
    assert all(one.label == label for one, label in zip(data.images, data.labels, strict=True))


def test_an_absent_folder_is_refused_with_where_its_name_counts_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        DataError, match=r"data\.source = 'gone': .* starts from the folder in which the command"
    ):
        loaded("gone")


def test_data_holds_no_test_image(folder):
    data = loaded(folder(train=(5, 5), val=(2, 2), test=(3, 3)))
    assert data.n_test == 6
    assert {one.split for one in data.images} == {"train", "val"}


def test_the_test_split_is_what_the_search_does_not_see(folder):
    root = folder(20, 20)
    test = load.test_split(spec(root), seed=SEED)
    assert test.labels.tolist() == [0] * 4 + [1] * 4
    assert not {one.digest for one in test.images} & {one.digest for one in loaded(root).images}


def test_without_test_images_there_is_no_test_split(folder):
    with pytest.raises(DataError, match="nothing is held out"):
        load.test_split(spec(folder(5, 5), test_fraction=0.0), seed=SEED)


# Readability


def spoiled(root):
    (root / "a" / "bad.jpg").write_bytes(b"no image")
    (root / "b" / "empty.png").touch()
    return root


def test_unreadable_files_are_named_with_the_way_out(folder):
    with pytest.raises(DataError) as caught:
        loaded(spoiled(folder(5, 5)))
    message = str(caught.value)
    assert message.startswith("2 images of")
    assert all(
        part in message for part in ("bad.jpg: the content", "empty.png: the file is", 'unreadable = "skip"')
    )


def test_of_many_unreadable_files_the_first_five_are_named(folder):
    root = folder(5, 5)
    for index in range(8):
        (root / "a" / f"bad{index}.jpg").touch()
    with pytest.raises(DataError, match=r"8 images of (.|\n)*bad4\.jpg(.|\n)*and 3 more"):
        loaded(root)


def test_unreadable_files_can_be_skipped_and_are_counted(folder):
    data = loaded(spoiled(folder(5, 5)), unreadable="skip", test_fraction=0.0)
    assert [path.rsplit("/", 1)[1] for path in data.skipped] == ["bad.jpg", "empty.png"]
    assert (len(data.images), any("2 images cannot be decoded" in n for n in data.notices)) == (10, True)


def test_a_broken_link_is_unreadable(folder):
    root = folder(5, 5)
    (root / "a" / "link.png").symlink_to("nowhere.png")
    with pytest.raises(DataError, match=r"link\.png: it cannot be read \(a link to nowhere\.png, which"):
        loaded(root)


def test_a_bomb_is_unreadable(folder, monkeypatch):
    root = folder(5, 5)
    PIL.Image.new("1", (100, 100)).save(root / "a" / "bomb.png")
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match=r"bomb\.png: it has more pixels"):
        loaded(root)


def test_a_class_of_which_skipping_leaves_too_little_is_named(folder):
    root = folder(5, 1)
    (root / "b" / "bad.jpg").touch()
    with pytest.raises(DataError, match='the class "b" has too few images'):
        loaded(root, unreadable="skip")


def test_a_second_start_reads_no_file(folder, monkeypatch):
    root = folder(5, 5)
    first = loaded(root)
    monkeypatch.setattr(digest, "read_regular", None)  # would be called
    assert loaded(root).fingerprint == first.fingerprint


def test_a_changed_file_is_read_again(folder):
    root = folder(5, 5)
    first = loaded(root)
    save(root / "a" / "000.png", 99)
    assert loaded(root).fingerprint != first.fingerprint


def test_a_digest_that_has_changed_in_the_cache_is_not_believed(folder, own_cache):
    root = folder(5, 5)
    first = loaded(root)
    (cache,) = own_cache.glob("digests/*.json")
    digest = first.images[0].digest
    other = digest[:-1] + ("0" if digest[-1] != "0" else "1")
    cache.write_text(cache.read_text().replace(digest, other))
    assert loaded(root).fingerprint == first.fingerprint


def test_a_damaged_cache_of_digests_is_made_again(folder, own_cache):
    root = folder(5, 5)
    first = loaded(root)
    (cache,) = own_cache.glob("digests/*.json")
    cache.write_bytes(cache.read_bytes()[:20])
    assert loaded(root).fingerprint == first.fingerprint


def test_without_a_cache_everything_is_read_each_time_and_the_setting_is_named_once(
    folder, tmp_path, monkeypatch, caplog
):
    root = folder(5, 5)
    expected = loaded(root).fingerprint
    (tmp_path / "file").touch()
    monkeypatch.setenv("TLOPT_CACHE", str(tmp_path / "file"))
    assert [loaded(root).fingerprint for _ in range(2)] == [expected] * 2
    (said,) = caplog.messages
    assert "set TLOPT_CACHE to a writable folder" in said
    assert str(tmp_path / "file") in said


# Equal contents


def test_one_image_in_two_classes_is_refused_with_both_names(folder):
    root = folder(5, 5)
    shutil.copy(root / "a" / "000.png", root / "b" / "copy.png")
    with pytest.raises(
        DataError, match=r'1 image of .* in two classes:\n.*a/000\.png \("a"\) and .*b/copy\.png \("b"\)'
    ):
        loaded(root)


def test_copies_in_one_class_are_counted(folder):
    root = folder(5, 5)
    shutil.copy(root / "a" / "000.png", root / "a" / "copy.png")
    assert any(notice.startswith("1 image is a copy of another one") for notice in loaded(root).notices)


def test_copies_of_test_images_leave_train_and_val(folder):
    root = folder(train=(5, 5), val=(2, 2), test=(3, 3))
    shutil.copy(root / "test" / "a" / "000.png", root / "train" / "a" / "leak.png")
    shutil.copy(root / "test" / "b" / "000.png", root / "val" / "b" / "leak.png")
    data = loaded(root)
    assert (len(data.images), data.n_test) == (14, 6)
    assert any(notice.startswith("2 images of train or val are copies") for notice in data.notices)


def test_copies_of_val_images_leave_train(folder):
    root = folder(train=(5, 5), val=(2, 2))
    shutil.copy(root / "val" / "a" / "000.png", root / "train" / "a" / "leak.png")
    data = loaded(root, test_fraction=0.0)
    assert [len(data.splits[0].train), len(data.splits[0].val)] == [10, 4]


# Notices


def told(data, text: str) -> bool:
    return any(text in notice for notice in data.notices)


def test_few_and_unequal_classes_are_told(folder):
    data = loaded(folder(60, 6))
    assert told(data, 'few images: "b" has 4 to train with')
    assert told(data, 'unequal classes: "a" has 36')


@pytest.mark.parametrize(("largest", "is_told"), [(30, True), (28, False)])
def test_classes_are_unequal_from_three_to_one_on(folder, largest, is_told):
    assert told(loaded(folder(largest, 10), test_fraction=0.0), "unequal classes") is is_told


def test_a_small_val_folder_is_told(folder):
    assert told(loaded(folder(train=(5, 5), val=(2, 2)), test_fraction=0.0), "val has 4 images")


def test_repeats_without_effect_are_told(folder):
    assert told(loaded(folder(train=(5, 5), val=(2, 2)), repeats=3), "repeats = 3 has no effect")


def test_a_missing_test_split_is_told(folder):
    assert told(loaded(folder(5, 5), test_fraction=0.0), "no test images are held out")


def test_images_max_counts_test_images_too(folder):
    data = loaded(folder(train=(20, 20), test=(20, 20)), images_max=40)
    assert (len(data.images), data.n_test) == (20, 20)


# Fingerprint


def test_moving_and_renaming_change_nothing(folder, tmp_path):
    root = folder(9, 9)
    first = loaded(root)
    moved = tmp_path / "moved here"
    shutil.move(root, moved)
    for index, path in enumerate(sorted((moved / "a").iterdir(), reverse=True)):
        path.rename(path.with_name(f"z{index}.png"))
    second = loaded(moved)
    assert (second.fingerprint, len(first.fingerprint)) == (first.fingerprint, 16)
    assert [one.digest for one in second.images] == [one.digest for one in first.images]
    assert all((s.val == t.val).all() for s, t in zip(first.splits, second.splits, strict=True))


def pixel(root):
    with PIL.Image.open(root / "train" / "a" / "000.png") as picture:
        changed = picture.copy()
    changed.putpixel((3, 3), (1, 2, 3))
    changed.save(root / "train" / "a" / "000.png")


def held_out_pixel(root):
    save(root / "test" / "a" / "000.png", 999)


def label(root):
    (root / "train" / "a" / "000.png").rename(root / "train" / "b" / "new.png")


def class_name(root):
    for split in ("train", "test"):
        (root / split / "b").rename(root / split / "c")


def role(root):
    (root / "train" / "a" / "000.png").rename(root / "test" / "a" / "new.png")


@pytest.mark.parametrize("change", [pixel, held_out_pixel, label, class_name, role])
def test_the_fingerprint_changes_with(folder, change):
    root = folder(train=(6, 6), test=(3, 3))
    first = loaded(root).fingerprint
    change(root)
    assert loaded(root).fingerprint != first


def test_the_fingerprint_does_not_depend_on_the_seed(folder):
    root = folder(9, 9)
    assert load.load_data(spec(root), seed=1).fingerprint == load.load_data(spec(root), seed=2).fingerprint


def test_loading_a_folder_imports_no_torch(folder):
    code = (
        "import sys; from tlopt.data.load import load_data; from tlopt.data.pixels import pixels;"
        "from tlopt.spec.sections import DataSpec; from tlopt.data.decode import Reading;"
        f"data = load_data(DataSpec(source={str(folder(5, 5))!r}), seed=1);"
        "pixels(data, size=8, reading=Reading(resize='crop'));"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_seeds_of_a_confirmation_take_its_splits_in_turn_or_those_of_the_trials(folder):
    data = loaded(folder(20, 20), repeats=2, confirm_splits=3)
    assert (data.n_trial_splits, data.n_confirm_splits, len(data.splits)) == (2, 3, 5)
    assert [data.confirm_split(replicate) for replicate in range(5)] == [2, 3, 4, 2, 3]
    data = loaded(folder(20, 20), repeats=2)
    assert [data.confirm_split(replicate) for replicate in range(5)] == [0, 1, 0, 1, 0]


def test_splits_of_a_confirmation_have_no_effect_beside_a_validation_split(folder):
    own = loaded(folder(train=(5, 5), val=(2, 2)), confirm_splits=3)
    assert any("confirm_splits = 3 has no effect: the source has a val" in notice for notice in own.notices)
    assert own.n_confirm_splits == 0


def test_splits_of_a_confirmation_have_no_effect_beside_folds(folder):
    folds = loaded(folder(9, 9), folds=3, confirm_splits=2)
    assert any("confirm_splits = 2 has no effect: folds" in notice for notice in folds.notices)
    assert folds.n_confirm_splits == 0
