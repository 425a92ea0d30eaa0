"""Listings of folders by class and split, and refused layouts."""

import os

import pytest
from pictures import save

from tlopt.data.sources.entry import EXTENSIONS
from tlopt.data.sources.folder import list_folder
from tlopt.errors import DataError


def rows(tree) -> set[tuple[str, str, str]]:
    return {(entry.split, entry.class_name, entry.path.name) for entry in tree.entries}


def test_one_folder_a_class_is_still_to_be_split(folder):
    tree = list_folder(folder(1, 2))
    assert rows(tree) == {
        ("trainval", "a", "000.png"),
        ("trainval", "b", "000.png"),
        ("trainval", "b", "001.png"),
    }
    assert tree.notices == ()


@pytest.mark.parametrize("val", ["val", "valid", "validation", "VAL"])
def test_split_folders_are_used_as_they_are(folder, val):
    tree = list_folder(folder(**{"train": (1, 1), val: (1, 1), "test": (1, 1)}))
    assert {(entry.split, entry.class_name) for entry in tree.entries} == {
        (split, name) for split in ("train", "val", "test") for name in "ab"
    }


def test_without_a_val_folder_train_is_still_to_be_split(folder):
    tree = list_folder(folder(train=(1, 1), test=(1, 1)))
    assert {entry.split for entry in tree.entries} == {"trainval", "test"}


def test_train_beside_bus_and_car_is_a_class(tmp_path):
    for name in ("bus", "car", "train"):
        save(tmp_path / name / "x.png", 1)
    assert list_folder(tmp_path).class_names == ("bus", "car", "train")


def test_nested_folders_belong_to_their_class(folder):
    root = folder(1, 1)
    save(root / "a" / "2019" / "may" / "deep.png", 9)
    assert ("trainval", "a", "deep.png") in rows(list_folder(root))


def test_every_extension_in_any_case_is_an_image(folder):
    root = folder(1, 1)
    names = {f"lower{e}" for e in EXTENSIONS} | {f"upper{e.upper()}" for e in EXTENSIONS} | {"x.Png"}
    for name in names:
        (root / "a" / name).touch()
    assert {entry.path.name for entry in list_folder(root).entries} >= names


def test_names_with_spaces_and_any_script_are_kept(tmp_path):
    save(tmp_path / "dos palabras" / "a b.png", 1)
    save(tmp_path / "花 é" / "ü.png", 2)
    assert list_folder(tmp_path).class_names == ("dos palabras", "花 é")


def test_composed_and_decomposed_letters_are_one_name(tmp_path):
    save(tmp_path / "e\u0301" / "x.png", 1)
    save(tmp_path / "b" / "x.png", 2)
    assert list_folder(tmp_path).class_names == ("b", "\u00e9")


def test_links_to_files_and_folders_are_followed(folder, tmp_path):
    root = folder(1, 1)
    os.symlink(save(tmp_path / "elsewhere" / "linked.png", 9), root / "a" / "link.png")
    os.symlink(tmp_path / "elsewhere", root / "c")
    assert {("trainval", "a", "link.png"), ("trainval", "c", "linked.png")} <= rows(list_folder(root))


def test_a_link_in_a_circle_ends(folder):
    root = folder(1, 1)
    os.symlink(root / "a", root / "a" / "again")
    assert len(list_folder(root).entries) == 2


def test_files_of_operating_systems_are_skipped_without_a_notice(folder):
    root = folder(1, 1)
    for name in (".DS_Store", "a/Thumbs.db", "a/.hidden.png", "desktop.ini"):
        (root / name).touch()
    save(root / "__MACOSX" / "a" / "x.png", 1)
    tree = list_folder(root)
    assert (len(tree.entries), tree.notices) == (2, ())


def test_other_files_are_counted_and_named(folder):
    root = folder(1, 1)
    (root / "readme.txt").touch()
    (root / "a" / "labels.json").touch()
    (notice,) = list_folder(root).notices
    assert notice == "2 files without a known image extension left out: readme.txt, a/labels.json"


def test_images_beside_class_folders_are_counted_and_named(folder):
    root = folder(train=(1, 1), val=(1, 1))
    save(root / "train" / "loose.png", 9)
    (notice,) = list_folder(root).notices
    assert notice == "1 image lies beside the class folders, left out: train/loose.png"


def test_a_folder_beside_the_splits_is_named(folder):
    root = folder(train=(1, 1), val=(1, 1), unlabelled=(1,))
    (notice,) = list_folder(root).notices
    assert "unlabelled is beside train/ and left out" in notice


def test_a_class_that_val_or_test_lacks_is_named(folder):
    tree = list_folder(folder(train=(1, 1, 1), val=(1, 1), test=(1,)))
    assert tree.notices == ("val has no images of c", "test has no images of b, c")


def refused(root, pattern: str) -> None:
    with pytest.raises(DataError, match=pattern):
        list_folder(root)


def test_an_absent_folder_is_refused(tmp_path):
    refused(tmp_path / "gone", "gone: there is no such folder")


def test_an_archive_is_refused(tmp_path):
    (tmp_path / "x.zip").touch()
    refused(tmp_path / "x.zip", "is a file: unpack it")


def test_a_folder_of_loose_images_is_refused(tmp_path):
    save(tmp_path / "x.png", 1)
    refused(tmp_path, "no class folders with images; expected is one folder for each class")


def test_a_table_of_labels_is_refused_by_name(tmp_path):
    save(tmp_path / "x.png", 1)
    (tmp_path / "labels.csv").touch()
    refused(tmp_path, r'labels are in labels\.csv, name it: source = ".*labels\.csv"')


def test_one_class_is_refused(folder):
    refused(folder(3), "only one class")


def test_an_export_in_the_place_of_images_is_named(tmp_path):
    for name in ("preprocessing.json", "mistakes.csv", "config.toml"):
        (tmp_path / name).touch()

    refused(tmp_path, "is an export of tlopt, not a folder of images: tlopt predict .* --against ")


def test_an_empty_class_is_named(folder):
    root = folder(3, 3)
    (root / "void").mkdir()
    refused(root, "void: the class folder contains no images: fill it")


def test_a_class_of_other_files_only_says_which(folder):
    root = folder(3, 3)
    (root / "phone").mkdir()
    (root / "phone" / "x.MOV").touch()
    refused(root, r"contains no images, only \.mov files: fill")


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_class_that_train_lacks_is_named(folder, split):
    refused(folder(**{"train": (1, 1), split: (1, 1, 1)}), f'the class "c" of {split} is not in train')


def test_splits_without_train_are_refused(folder):
    refused(folder(val=(1, 1), test=(1, 1)), "has test, val and no train/")


def test_two_names_for_one_split_are_refused(folder):
    refused(folder(train=(1, 1), val=(1, 1), valid=(1, 1)), "name the same split")


def test_split_folders_without_classes_are_refused(tmp_path):
    save(tmp_path / "train" / "cat1.png", 1)
    save(tmp_path / "test" / "cat2.png", 2)
    refused(tmp_path, "test holds no class folders")


@pytest.mark.parametrize("labels", ["labels", "annotations", "Annotations"])
@pytest.mark.parametrize("inside", ["", "train"])
def test_the_layout_of_detection_is_refused(tmp_path, labels, inside):
    save(tmp_path / inside / "images" / "x.png", 1)
    (tmp_path / inside / labels).mkdir()
    refused(tmp_path, "the layout of detection; expected is one folder for each class")


def test_a_folder_of_data_sets_is_refused(tmp_path):
    for name in ("flowers", "birds"):
        save(tmp_path / name / "train" / "a" / "x.png", 1)
    refused(tmp_path, "birds holds train/ itself: is it the folder you mean")


def test_a_folder_that_cannot_be_listed_is_named(folder, monkeypatch):
    root = folder(1, 1)

    def locked(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", locked)
    refused(root, "images cannot be listed: Permission denied")
