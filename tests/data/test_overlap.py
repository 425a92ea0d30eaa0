"""Copies, conflicts, groups and near-duplicates: sides of splits, and notices."""

import shutil

import numpy as np
import PIL.Image
import pytest
from pictures import SEED, save, spec

from tlopt.data import load
from tlopt.data.likeness import DIFFERENT_MAX, is_distinctive, similar_pairs, sketch
from tlopt.errors import DataError


def loaded(root, **changes):
    return load.load_data(spec(root, **changes), seed=SEED)


def told(data, words):
    return [notice for notice in data.notices if words in notice]


def sides(root, **changes):
    """The split of each file by its path below the source: "train", "val" (of the first split) or "test"."""
    data = loaded(root, **changes)
    val = set(data.splits[0].val.tolist())
    found = {image.origin.path: "val" if i in val else "train" for i, image in enumerate(data.images)}
    if data.n_test:
        test = load.test_split(spec(root, **changes), seed=SEED)
        found |= {image.origin.path: "test" for image in test.images}
    return {path.relative_to(root).as_posix(): side for path, side in found.items()}


def saved_again(path, suffix):
    """The image at `path` beside it, with the same pixels in another file."""
    again = path.with_name(f"{path.stem}-again{suffix}")
    with PIL.Image.open(path) as image:
        image.convert("RGB").save(again)
    assert again.read_bytes() != path.read_bytes()
    return again


@pytest.mark.parametrize("suffix", [".bmp", ".tif"])
def test_images_saved_again_stay_on_one_side(folder, suffix):
    root = folder(12, 12)
    for path in sorted((root / "a").iterdir()):
        saved_again(path, suffix)
    where = sides(root)
    for index in range(12):
        assert where[f"a/{index:03}.png"] == where[f"a/{index:03}-again{suffix}"]
    assert told(loaded(root), "12 images are copies of another one of the same class (12 of them saved again")


def test_a_jpeg_saved_as_png_is_a_copy_though_it_is_decoded_at_another_scale(folder, tmp_path):
    root = folder(6, 6)
    rough = PIL.Image.fromarray(np.random.default_rng(1).integers(0, 256, (9, 9, 3), dtype=np.uint8))
    rough.resize((300, 300), PIL.Image.Resampling.BICUBIC).save(root / "a" / "large.jpg", quality=90)
    saved_again(root / "a" / "large.jpg", ".png")
    where = sides(root)
    assert where["a/large.jpg"] == where["a/large-again.png"]


def test_before_pixels_were_compared_only_equal_files_were_copies(folder):
    root = folder(6, 6)
    saved_again(root / "a" / "000.png", ".bmp")
    assert not told(loaded(root, copies="files"), "copies")


def test_a_set_without_copies_is_divided_as_before_pixels_were_compared(folder):
    root = folder(9, 9)
    assert sides(root) == sides(root, copies="files")
    assert loaded(root).fingerprint == loaded(root, copies="files").fingerprint


def test_images_that_stay_together_are_part_of_the_fingerprint(folder):
    root = folder(9, 9)
    saved_again(root / "a" / "000.png", ".bmp")
    assert loaded(root).fingerprint != loaded(root, copies="files").fingerprint


def test_a_training_image_saved_again_in_test_is_left_out_of_training(folder):
    root = folder(train=(8, 8), test=(3, 3))
    shutil.move(saved_again(root / "train" / "a" / "000.png", ".bmp"), root / "test" / "a" / "copy.bmp")
    data = loaded(root)
    assert told(data, "1 image of train or val is a copy of one in val or test")
    assert "000.png" not in {i.origin.path.name for i in data.images if "/a/" in str(i.origin)}


def test_conflicts_are_named_five_at_a_time_with_their_number(folder):
    root = folder(9, 9)
    for index in range(7):
        shutil.copy(root / "a" / f"{index:03}.png", root / "b" / f"copy{index}.png")
    with pytest.raises(DataError) as caught:
        loaded(root)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"7 images of {root} lie in two classes:"
    assert lines[1] == f'{root}/a/000.png ("a") and {root}/b/copy0.png ("b")'
    assert lines[6] == "and 2 more"
    assert 'conflicts = "skip"' in lines[7]


def test_an_image_saved_again_in_another_class_is_a_conflict(folder):
    root = folder(9, 9)
    shutil.move(saved_again(root / "a" / "000.png", ".bmp"), root / "b" / "copy.bmp")
    with pytest.raises(DataError, match=r'\("b"\), with the same pixels'):
        loaded(root)


def test_skipped_conflicts_are_left_out_with_all_of_their_copies(folder):
    root = folder(9, 9)
    shutil.copy(root / "a" / "000.png", root / "b" / "copy.png")
    data = loaded(root, conflicts="skip")
    assert len(data.images) + data.n_test == 17
    assert told(data, "2 images whose copies have another label are left out")


# Groups


def patients(root, n=10, images=4):
    """Classes a and b, `n` patients each in both, named before the underscore."""
    content = 0
    for name in ("a", "b"):
        for patient in range(n):
            for index in range(images):
                content += 1
                save(root / name / f"p{patient}_{index}.png", content)
    return root


def together(where, group_of):
    """Whether every group is on one side."""
    found = {}
    for path, side in where.items():
        found.setdefault(group_of(path), set()).add(side)
    return all(len(each) == 1 for each in found.values())


def patient_of(path):
    return path.split("/")[-1].split("_")[0]


@pytest.mark.parametrize("repeats", [1, 5])
def test_groups_by_pattern_stay_on_one_side_in_every_split(tmp_path, repeats):
    root = patients(tmp_path / "images")
    data = loaded(root, group_pattern=r"/(p\d+)_", repeats=repeats)
    assert len(data.splits) == repeats
    test = {
        patient_of(str(i.origin))
        for i in load.test_split(spec(root, group_pattern=r"/(p\d+)_"), seed=SEED).images
    }
    for split in data.splits:
        train, val = (
            {patient_of(str(data.images[i].origin)) for i in part} for part in (split.train, split.val)
        )
        assert not train & val
        assert not (train | val) & test
    assert len({tuple(split.val) for split in data.splits}) == repeats


def test_groups_are_counted_and_named_for_a_person(tmp_path):
    root = patients(tmp_path / "images", n=6, images=1)
    assert told(
        loaded(root, group_pattern=r"/(p\d+)_"), "6 groups of images stay on one side of every split: p0, p1"
    )


def test_without_a_pattern_the_same_patients_straddle(tmp_path):
    assert not together(sides(patients(tmp_path / "images")), patient_of)


def test_groups_by_folder_stay_on_one_side(tmp_path):
    root = tmp_path / "images"
    for content in range(96):
        save(root / "ab"[content % 2] / f"scene{content // 2 % 8}" / f"{content}.png", content)
    where = sides(root, group_folder=1)
    assert together(where, lambda path: path.split("/")[1])
    assert set(where.values()) == {"train", "val", "test"}


def test_groups_by_column_stay_on_one_side(tmp_path):
    lines = ["file,label,who"]
    for content in range(60):
        save(tmp_path / f"{content}.png", content)
        lines.append(f"{content}.png,{'ab'[content % 2]},{content // 6}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    data = load.load_data(spec(tmp_path / "labels.csv", group_column="who"), seed=SEED)
    for split in data.splits:
        train, val = (
            {int(data.images[i].origin.path.stem) // 6 for i in part} for part in (split.train, split.val)
        )
        assert not train & val


def test_classes_keep_their_shares_as_nearly_as_groups_allow(tmp_path):
    root = tmp_path / "images"
    sizes, content = (1, 2, 3, 4, 6, 8), 0
    for name, factor in (("a", 1), ("b", 3)):
        for group in range(18):
            for index in range(sizes[group % 6] * factor):
                content += 1
                save(root / name / f"{name}{group}_{index}.png", content, side=4)
    data = loaded(root, group_pattern=r"/(\w\d+)_", repeats=3)
    n = {0: 72, 1: 216}
    for split in data.splits:
        for label, total in n.items():
            share = (data.labels[split.val] == label).sum() / total
            assert share == pytest.approx(0.2, abs=0.03)
    assert data.n_test / 288 == pytest.approx(0.2, abs=0.03)


def test_the_same_groups_are_drawn_wherever_the_images_lie(tmp_path):
    root = patients(tmp_path / "images")
    before = sides(root, group_pattern=r"/(p\d+)_")
    assert sides(root.rename(tmp_path / "moved"), group_pattern=r"/(p\d+)_") == before


def test_copies_in_two_groups_join_them(tmp_path):
    root = patients(tmp_path / "images")
    shutil.copy(root / "a" / "p0_0.png", root / "a" / "p1_9.png")
    shutil.copy(root / "a" / "p1_0.png", root / "a" / "p2_9.png")
    where = sides(root, group_pattern=r"/(p\d+)_")
    assert len({side for path, side in where.items() if patient_of(path) in ("p0", "p1", "p2")}) == 1


def test_groups_are_part_of_the_fingerprint(tmp_path):
    root = patients(tmp_path / "images")
    assert loaded(root).fingerprint != loaded(root, group_pattern=r"/(p\d+)_").fingerprint


def test_images_without_a_group_are_named(tmp_path):
    root = patients(tmp_path / "images", n=6)
    save(root / "a" / "other.png", 999)
    with pytest.raises(DataError, match=r"1 of 49 images have no group: data\.group_pattern.*a/other\.png"):
        loaded(root, group_pattern=r"/(p\d+)_")
    with pytest.raises(
        DataError, match=r"49 of 49 images have no group: data\.group_folder needs a folder 2 above"
    ):
        loaded(root, group_folder=2)


def test_a_class_in_too_few_groups_is_named(tmp_path):
    root = patients(tmp_path / "images", n=2)
    with pytest.raises(DataError, match=r'the class "a" lies in 2 groups, which do not suffice to draw test'):
        loaded(root, group_pattern=r"/(p\d+)_")


def test_a_group_in_two_given_splits_is_named(tmp_path):
    root = tmp_path / "images"
    for content, (split, name, who) in enumerate(
        [(s, c, w) for s, ws in (("train", "012"), ("test", "23")) for c in "ab" for w in ws]
    ):
        save(root / split / name / f"p{who}_{content}.png", content)
    with pytest.raises(DataError, match=r'1 group lies in several splits of the source: "2" \(test, train\)'):
        loaded(root, group_pattern=r"/p(\d+)_")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"group_pattern": "("}, "no regular expression"),
        (
            {"group_pattern": "a", "group_folder": 1},
            "group_folder and group_pattern both say what a group is",
        ),
        ({"bits": 5}, "5 is not allowed: 0, or 8 to 16"),
    ],
)
def test_keys_that_cannot_be_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        spec("x", **changes)


# Looks


def photo(seed, side=64):
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return PIL.Image.fromarray(coarse).resize((side, side), PIL.Image.Resampling.BICUBIC)


def test_a_sketch_survives_saving_scaling_and_light_and_tells_other_images_apart(tmp_path):
    photo(1).save(tmp_path / "x.jpg", quality=40)
    with PIL.Image.open(tmp_path / "x.jpg") as worse:
        changed = [worse.convert("RGB"), photo(1).resize((200, 200)), photo(1).point(lambda v: 20 + v * 0.8)]
        found = similar_pairs(
            [sketch(image) for image in (photo(1), *changed, *(photo(seed) for seed in range(2, 40)))]
        )
    assert {(0, 1), (0, 2), (0, 3)} <= set(found)
    assert max(j for _, j in found) == 3


def test_pairs_are_those_that_differ_in_few_bits():
    random = np.random.default_rng(0)
    codes = random.integers(0, 256, (60, 32), dtype=np.uint8)
    for copy, n_bits in ((50, DIFFERENT_MAX), (51, DIFFERENT_MAX + 1)):
        bits = np.unpackbits(codes[copy - 40])
        bits[random.choice(256, n_bits, replace=False)] ^= 1
        codes[copy] = np.packbits(bits)
    assert similar_pairs([row.tobytes().hex() for row in codes]) == [(10, 50)]


def test_a_plain_image_tells_nothing():
    assert not is_distinctive(sketch(PIL.Image.new("RGB", (32, 32), "white")))
    assert is_distinctive(sketch(photo(1)))


def test_images_of_test_that_look_like_one_of_train_are_counted(folder):
    root = folder(train=(6, 6), test=(3, 3))
    photo(1).save(root / "train" / "a" / "like.png")
    photo(1).resize((60, 60)).save(root / "test" / "a" / "alike.png")
    (notice,) = told(loaded(root), "look")
    assert notice.startswith("1 image of val or test looks much like one of another split")
    assert "alike.png and" in notice


def test_look_alikes_on_one_side_are_no_news(folder):
    root = folder(train=(6, 6), val=(3, 3), test=(3, 3))
    photo(1).save(root / "train" / "a" / "like.png")
    photo(1).resize((60, 60)).save(root / "train" / "a" / "alike.png")
    assert not told(loaded(root), "much like")


# Values and folders


@pytest.mark.parametrize(("value", "told_bits"), [(1023, 10), (4095, 12), (8191, 13)])
def test_deep_images_that_use_little_of_their_range_are_said_with_the_cure(folder, value, told_bits):
    root = folder(6, 6)
    for index, name in enumerate("ab"):
        deep = np.full((12, 12), value, dtype=np.uint16)
        deep[index] = 0
        PIL.Image.fromarray(deep).save(root / name / "deep.png")
    (notice,) = told(loaded(root), "16 bits")
    assert (
        f"2 images have 16 bits but use less than an eighth of their range (the largest value is {value}"
        in notice
    )
    assert f"data.bits = {told_bits} takes" in notice
    assert not told(loaded(root, bits=told_bits), "16 bits")


def test_one_deep_image_that_uses_its_range_is_enough(folder):
    root = folder(6, 6)
    for name, value in (("a", 1023), ("b", 9000)):
        PIL.Image.fromarray(np.full((12, 12), value, dtype=np.uint16)).save(root / name / "deep.png")
    assert not told(loaded(root), "16 bits")


def test_classes_that_hold_the_same_folders_are_said(tmp_path):
    for content in range(48):
        save(tmp_path / "x" / f"fold{content % 2}" / "ab"[content // 2 % 2] / f"{content}.png", content)
    (notice,) = told(loaded(tmp_path / "x"), "same folders")
    assert notice.startswith("each of the classes fold0, fold1 holds the same folders (a, b): if those are")


def test_classes_with_other_folders_are_no_news(tmp_path):
    for content in range(48):
        save(
            tmp_path / "x" / "ab"[content % 2] / f"{content % 2}{content // 2 % 2}" / f"{content}.png",
            content,
        )
    assert not told(loaded(tmp_path / "x"), "same folders")
