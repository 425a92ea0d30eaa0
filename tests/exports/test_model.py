"""An export as a torch module predicts as `predict` does and can be trained further."""

from pathlib import Path

import pytest
import torch
from finished import CLASS_NAMES
from PIL import Image

import tlopt
from tlopt.errors import NotReady
from tlopt.exports.model import Classifier, load_classifier
from tlopt.exports.predict import predict
from tlopt.exports.read import Export

CPU = torch.device("cpu")


@pytest.fixture
def classifier(export: Export) -> Classifier:
    return load_classifier(export.folder, CPU)


@pytest.fixture
def files(image_folder: Path) -> list[Path]:
    return sorted((image_folder / "red").iterdir())[:3]


def test_labels_and_probabilities_are_those_of_predict(
    classifier: Classifier, export: Export, files: list[Path]
) -> None:
    expected = [(row.label, row.probability) for row in predict(export, files, CPU)]

    found = classifier.classify(files)

    assert [label for label, _ in found] == [label for label, _ in expected]
    assert [p for _, p in found] == pytest.approx([p for _, p in expected], abs=1e-6)
    assert classifier.class_names == CLASS_NAMES


def test_an_open_image_gives_the_view_of_its_file(classifier: Classifier, files: list[Path]) -> None:
    with Image.open(files[0]) as image:
        assert torch.equal(classifier.transform(image), classifier.transform(files[0]))


def test_the_module_can_be_trained_further(classifier: Classifier, export: Export) -> None:
    views = torch.zeros(2, 3, export.resolution, export.resolution)

    classifier.train()
    classifier(views).sum().backward()

    assert any(p.grad is not None and bool((p.grad != 0).any()) for p in classifier.parameters())
    assert not load_classifier(export.folder, CPU).training


def test_an_empty_list_gives_no_labels(classifier: Classifier) -> None:
    assert classifier.classify([]) == []


def test_the_repr_is_one_line(export: Export) -> None:
    said = repr(tlopt.load_model(export.folder, device="cpu"))

    assert said == f"<Classifier resnet18: 32 px, 3 classes, from {export.folder}>"


def test_a_folder_that_is_not_an_export_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match=r"is not an export: it has no weights\.safetensors; tlopt export"):
        tlopt.load_model(tmp_path)
    with pytest.raises(NotReady, match="is not an export: there is no such folder"):
        tlopt.load_model(tmp_path / "away")
