"""Data sets of libraries: scikit-learn's digits and torchvision's."""

from typing import ClassVar

import numpy as np
import PIL.Image
import pytest
import torchvision.datasets
from pictures import SEED, spec

from tlopt.cache.folder import read_checked_json, write_checked_json_if_possible
from tlopt.data import load
from tlopt.data import pixels as pixel_store
from tlopt.data.decode import Reading
from tlopt.errors import DataError, MissingExtra


class Fake(torchvision.datasets.VisionDataset):
    """Twelve grey images, label = index % 3; image i of a split has the value offset + i."""

    offsets: ClassVar = {"train": 0, "val": 100, "test": 200}
    classes = ("x", "y", "z")
    downloads = 0

    def __init__(self, root, split="train", download=False):
        super().__init__(root)
        if split not in self.offsets:
            raise ValueError(f"Unknown value '{split}' for argument split.")
        if not download and not type(self).downloads:
            raise RuntimeError("Dataset not found. You can use download=True to download it")
        type(self).downloads += download
        self.offset = self.offsets[split]

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return PIL.Image.new("L", (4, 4), self.offset + index), index % 3


def install(monkeypatch, **attributes) -> type:
    """A fresh `torchvision:Fake`."""
    made = type("Fake", (Fake,), {"downloads": 0, **attributes})
    monkeypatch.setattr(torchvision.datasets, "Fake", made, raising=False)
    return made


def loaded(source="torchvision:Fake", **changes):
    return load.load_data(spec(source, **changes), seed=SEED)


def test_a_data_set_s_own_splits_are_used(monkeypatch):
    install(monkeypatch)
    data = loaded()
    assert (data.class_names, data.n_test) == (("x", "y", "z"), 12)
    assert [len(data.splits[0].train), len(data.splits[0].val)] == [12, 12]


def test_without_a_val_split_one_is_drawn(monkeypatch):
    install(monkeypatch, offsets={"trainval": 0, "test": 200})
    data = loaded()
    assert (len(data.splits), len(data.splits[0].val), data.n_test) == (3, 3, 12)


def with_train_flag(self, root, train=True, download=False):
    Fake.__init__(self, root, "train" if train else "test", download)


def without_splits(self, root, download=False):
    Fake.__init__(self, root, "train", download)


def test_a_train_flag_gives_train_and_test(monkeypatch):
    install(monkeypatch, __init__=with_train_flag)
    data = loaded()
    assert (len(data.images), data.n_test) == (12, 12)


def test_a_data_set_without_splits_is_divided(monkeypatch):
    install(monkeypatch, __init__=without_splits)
    data = loaded()
    assert (len(data.images), data.n_test) == (9, 3)


def test_a_data_set_is_fetched_once(monkeypatch):
    fake = install(monkeypatch)
    loaded()
    assert fake.downloads == 1


def test_a_second_start_opens_no_data_set(monkeypatch):
    install(monkeypatch)
    first = loaded().fingerprint
    monkeypatch.delattr(torchvision.datasets, "Fake")
    assert loaded().fingerprint == first


@pytest.mark.parametrize("lost", ["class_names", "former_names", "parts", "rows"])
def test_a_stored_list_that_lacks_something_is_made_again(monkeypatch, cache, lost):
    install(monkeypatch)
    first = loaded()
    file = cache / "listings" / "torchvision-Fake.json"
    stored = read_checked_json(file)
    del stored[lost]
    write_checked_json_if_possible(file, stored)

    assert loaded().labels.tolist() == first.labels.tolist()


def test_pixels_of_samples_come_from_the_data_set(monkeypatch):
    install(monkeypatch)
    data = loaded()
    pixels = pixel_store.pixels(data, size=4, reading=Reading(resize="crop"))[np.arange(len(data.images))]
    values = {(int(label), int(image[0, 0, 0])) for label, image in zip(data.labels, pixels, strict=True)}
    assert values == {(i % 3, offset + i) for offset in (0, 100) for i in range(12)}


def test_samples_that_changed_are_named(monkeypatch):
    fake = install(monkeypatch)
    data = loaded()
    monkeypatch.setattr(fake, "__getitem__", lambda self, index: (PIL.Image.new("L", (4, 4), 50), 0))
    with pytest.raises(DataError, match=r"torchvision:Fake/\w+\[\d+\] has changed"):
        pixel_store.pixels(data, size=4, reading=Reading(resize="crop"))


def test_missing_class_names_are_numbers(monkeypatch):
    install(monkeypatch, classes=None)
    assert loaded().class_names == ("0", "1", "2")


def test_images_with_two_labels_are_left_out_and_told(monkeypatch):
    install(
        monkeypatch, __getitem__=lambda self, i: (PIL.Image.new("L", (4, 4), self.offset + max(i, 1)), i % 3)
    )
    data = loaded()
    assert (len(data.images), data.n_test) == (20, 10)
    assert "6 images whose copies have another label are left out" in data.notices


def without_network(self, root, split="train", download=False):
    if split not in self.offsets:
        raise ValueError
    raise OSError("Name or service not known") if download else RuntimeError("Dataset not found.")


def test_a_data_set_that_cannot_be_fetched_says_what_to_do(monkeypatch):
    install(monkeypatch, __init__=without_network)
    with pytest.raises(
        DataError, match=r"could not be fetched .*not known.* put its files under .*torchvision"
    ):
        loaded()


def needs_a_package(self, root, split="train", download=False):
    raise ModuleNotFoundError("No module named 'h5py'", name="h5py")


def test_a_package_that_torchvision_needs_is_named(monkeypatch):
    install(monkeypatch, __init__=needs_a_package)
    with pytest.raises(MissingExtra, match="pip install h5py"):
        loaded()


def test_an_unknown_name_suggests_another():
    with pytest.raises(DataError, match="no data set called Flower102; did you mean Flowers102"):
        loaded("torchvision:Flower102")


def test_an_invalid_name_of_a_data_set_is_refused():
    with pytest.raises(DataError, match="the name of a data set"):
        loaded("torchvision:../x")


def test_a_data_set_for_something_else_is_refused():
    with pytest.raises(DataError, match="CocoDetection needs more than a name"):
        loaded("torchvision:CocoDetection")


def test_labels_that_are_no_numbers_are_refused(monkeypatch):
    install(monkeypatch, __getitem__=lambda self, i: (PIL.Image.new("L", (4, 4), i), {"boxes": []}))
    with pytest.raises(DataError, match="is not for classification: sample 0 has the label"):
        loaded()


def test_a_sample_that_cannot_be_read_is_unreadable(monkeypatch):
    def broken(self, index):
        if index == 5:
            raise OSError("image file is truncated")
        return Fake.__getitem__(self, index)

    install(monkeypatch, __getitem__=broken)
    with pytest.raises(DataError, match=r"3 images of torchvision:Fake(.|\n)*train\[5\] cannot be read"):
        loaded()
    assert len(loaded(unreadable="skip").images) == 22


def test_fake_data_of_torchvision_is_used_without_a_network(monkeypatch):
    real = torchvision.datasets.FakeData

    class FakeData(real):
        def __init__(self, size=60, image_size=(3, 8, 8), num_classes=2):
            super().__init__(size, image_size, num_classes)

    monkeypatch.setattr(torchvision.datasets, "FakeData", FakeData)
    data = loaded("torchvision:FakeData")
    assert (data.class_names, len(data.images) + data.n_test) == (("0", "1"), 60)
    assert pixel_store.pixels(data, size=8, reading=Reading(resize="crop")).shape == (
        len(data.images),
        8,
        8,
        3,
    )


def test_digits_are_ten_classes_of_grey_images():
    data = loaded("digits", test_fraction=0.0)
    assert (data.class_names, len(data.images)) == (tuple("0123456789"), 1797)
    pixels = pixel_store.pixels(data, size=8, reading=Reading(resize="crop"))[np.arange(1797)]
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert (pixels[..., 0] == pixels[..., 2]).all()
