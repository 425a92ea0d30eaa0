"""Classification data sets of torchvision: class names, and no needless downloads."""

import gzip
import inspect
import json
import struct
import sys
import urllib.request

import pytest
import torchvision.datasets
from pictures import SEED, save, spec

from tlopt.data import load
from tlopt.data.sources import torchvision as source
from tlopt.errors import DataError, MissingExtra

NO_TRAINING_SPLIT = {"Places365", "EMNIST"}
NAMES = [
    name
    for name in torchvision.datasets.__all__
    if inspect.isclass(found := getattr(torchvision.datasets, name))
    and issubclass(found, torchvision.datasets.VisionDataset)
    and name not in ("FakeData", "VisionDataset")
]


@pytest.fixture
def fetched(monkeypatch):
    """The addresses requested while the network is unavailable."""
    asked = []

    def away(request, *_, **__):
        asked.append(getattr(request, "full_url", request))
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", away)
    monkeypatch.setattr(urllib.request, "urlretrieve", away)
    return asked


@pytest.mark.parametrize("name", NAMES)
def test_a_set_that_is_not_here_is_one_error_and_only_training_images_were_asked_for(name, tmp_path, fetched):

    def open_all() -> None:
        for part in source.parts(f"torchvision:{name}", tmp_path).values():
            source.open_part(f"torchvision:{name}", part, tmp_path)

    with pytest.raises((DataError, MissingExtra)) as caught:
        open_all()
    if name in NO_TRAINING_SPLIT:
        assert "no split called train" in str(caught.value)
        assert not fetched
    assert not any("val" in str(url).rsplit("/")[-1] and "train" not in str(url) for url in fetched), fetched


def test_a_set_whose_download_is_an_argument_of_its_base_class_is_fetched(tmp_path, fetched):
    with pytest.raises(DataError, match="QMNIST could not be fetched"):
        source.open_part("torchvision:QMNIST", "train", tmp_path)
    assert any("qmnist-train" in str(url) for url in fetched)


def pictures(folder, names, *, suffix=".jpg", n=6, first=0):
    for index in range(n):
        save(folder / f"{names}{index + 1:04}{suffix}", first + index)


def imagenette(root):
    wnids = ["n01440764", "n02102040", "n02979186", "n03000684", "n03028079"]
    wnids += ["n03394916", "n03417042", "n03425413", "n03445777", "n03888257"]
    for split, n in (("train", 6), ("val", 3)):
        for at, wnid in enumerate(wnids):
            pictures(
                root / "imagenette2" / split / wnid, "x", suffix=".JPEG", n=n, first=50 * at + 20 * (n == 3)
            )
    return "tench, English springer, cassette player, chain saw, church, French horn, garbage truck, gas pump"


def caltech101(root):
    for at, name in enumerate(("BACKGROUND_Google", "accordion", "airplanes")):
        pictures(root / "caltech101" / "101_ObjectCategories" / name, "image_", first=10 * at)
    (root / "caltech101" / "Annotations").mkdir()
    return "accordion, airplanes"


def caltech256(root):
    for at, name in enumerate(("001.ak47", "002.american-flag")):
        pictures(root / "caltech256" / "256_ObjectCategories" / name, f"{name[:3]}_", first=10 * at)
    return "001.ak47, 002.american-flag"


def eurosat(root):
    for at, name in enumerate(("AnnualCrop", "Forest")):
        pictures(root / "eurosat" / "2750" / name, f"{name}_", first=10 * at)
    return "AnnualCrop, Forest"


def country211(root):
    for k, split in enumerate(("train", "valid", "test")):
        for at, name in enumerate(("AD", "AE")):
            pictures(root / "country211" / split / name, "x", first=10 * at + 100 * k)
    return "AD, AE"


def dtd(root):
    folder = root / "dtd" / "dtd"
    (folder / "labels").mkdir(parents=True)
    lines = []
    for at, name in enumerate(("banded", "dotted")):
        pictures(folder / "images" / name, f"{name}_", n=9, first=10 * at)
        lines += [f"{name}/{name}_{i + 1:04}.jpg" for i in range(9)]
    for k, split in enumerate(("train", "val", "test")):
        (folder / "labels" / f"{split}1.txt").write_text("\n".join(lines[k::3]) + "\n")
    return "banded, dotted"


def food101(root):
    folder = root / "food-101"
    (folder / "meta").mkdir(parents=True)
    for at, name in enumerate(("apple_pie", "waffles")):
        pictures(folder / "images" / name, "", n=9, first=10 * at)
    for split, numbers in (("train", range(1, 7)), ("test", range(7, 10))):
        named = {name: [f"{name}/{i:04}" for i in numbers] for name in ("apple_pie", "waffles")}
        (folder / "meta" / f"{split}.json").write_text(json.dumps(named))
    return "apple_pie, waffles"


def rendered_sst2(root):
    for k, split in enumerate(("train", "valid", "test")):
        for at, name in enumerate(("negative", "positive")):
            pictures(root / "rendered-sst2" / split / name, "x", suffix=".png", first=10 * at + 100 * k)
    return "negative, positive"


def sun397(root):
    for at, name in enumerate(("abbey", "zoo")):
        pictures(root / "SUN397" / name[0] / name, "sun_", first=10 * at)
    (root / "SUN397" / "ClassName.txt").write_text("/a/abbey\n/z/zoo\n")
    return "abbey, zoo"


def fashion_mnist(root):
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for part, n in (("train", 60), ("t10k", 20)):
        data = b"".join(bytes([*(i % 10 * 20 + k % 7 for k in range(783)), i]) for i in range(n))
        (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, n, 28, 28) + data)
        labels = bytes(i % 10 for i in range(n))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, n) + labels)
    return "T-shirt/top, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker"


def qmnist(root):
    folder = root / "QMNIST" / "raw"
    folder.mkdir(parents=True)
    for part, n in (("train", 60), ("test", 20)):
        data = b"".join(bytes([*(i % 10 * 20 + k % 7 for k in range(783)), i]) for i in range(n))
        images = struct.pack(">IIII", 0x0803, n, 28, 28) + data
        labels = struct.pack(">III", 0x0C02, n, 8) + b"".join(
            struct.pack(">8i", i % 10, *[0] * 7) for i in range(n)
        )
        (folder / f"qmnist-{part}-images-idx3-ubyte").write_bytes(images)
        (folder / f"qmnist-{part}-labels-idx2-int").write_bytes(labels)
        for name, content in (("images-idx3-ubyte", images), ("labels-idx2-int", labels)):
            (folder / f"qmnist-{part}-{name}.gz").write_bytes(gzip.compress(content))
    return "0 - zero, 1 - one, 2 - two, 3 - three, 4 - four, 5 - five, 6 - six, 7 - seven"


SETS = {
    "Imagenette": imagenette,
    "Caltech101": caltech101,
    "Caltech256": caltech256,
    "EuroSAT": eurosat,
    "Country211": country211,
    "DTD": dtd,
    "Food101": food101,
    "RenderedSST2": rendered_sst2,
    "SUN397": sun397,
    "FashionMNIST": fashion_mnist,
    "QMNIST": qmnist,
}


@pytest.mark.parametrize("name", SETS)
def test_classes_have_the_names_that_people_call_them(name, own_cache, monkeypatch):
    module = sys.modules[getattr(torchvision.datasets, name).__module__]
    monkeypatch.setattr(module, "check_integrity", lambda *_: True, raising=False)
    expected = SETS[name](own_cache / "torchvision")
    data = load.load_data(spec(f"torchvision:{name}"), seed=SEED)
    assert ", ".join(data.class_names[:8]) == expected


def test_equal_names_are_told_apart_by_their_numbers():
    class Twice:
        classes = (("crane", "bird"), ("tench",), ("crane",))

    assert source.class_names(Twice()) == ("crane (0)", "tench", "crane (2)")


def test_the_fingerprint_is_that_of_the_former_names(own_cache):
    """A study that was begun when the classes were called 0, 1 goes on."""
    caltech256(own_cache / "torchvision")
    data = load.load_data(spec("torchvision:Caltech256"), seed=SEED)
    test = load.test_split(spec("torchvision:Caltech256"), seed=SEED).images
    assert data.fingerprint == load.fingerprint(("0", "1"), [*data.images, *test])
