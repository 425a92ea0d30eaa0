"""The statements of the model card are true, and its code works when copied."""

import csv
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finished import CLASS_NAMES, make_contents, make_point, make_row, make_verdict, planted, save_untrained
from PIL import Image

from tlopt.confirmation.predictions import Predictions, Source
from tlopt.confirmation.verdict import SplitName
from tlopt.data.decode import decode
from tlopt.data.views import eval_views
from tlopt.exports.card import ExportContents, model_card
from tlopt.exports.contents import known_predictions
from tlopt.exports.read import Export, inference_cost, load_network, plain_torch_code
from tlopt.exports.write import write_export
from tlopt.spec.default_names import PLAIN_LABEL
from tlopt.spec.point import Point

Exporter = Callable[[Point, str], Export]


def card_of(contents: ExportContents, export: Export) -> str:
    return model_card(contents, export, inference_cost(export))


DEFAULTS = (make_row(PLAIN_LABEL, (0.89, 0.90, 0.91), (0.87, 0.89, 0.91), number=-1),)


def _smooth(mode: str, size: tuple[int, int]) -> Image.Image:
    channels = len(mode)
    coarse = np.random.default_rng(1).integers(0, 256, (5, 7, channels), dtype=np.uint8)
    return Image.fromarray(coarse.squeeze(), mode=None).resize(size, Image.Resampling.BICUBIC)


def _save_turned_jpeg(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    _smooth("RGB", (401, 310)).save(path, "JPEG", exif=exif)


def _save_transparent(path: Path) -> None:
    _smooth("RGBA", (61, 90)).save(path, "PNG")


def _save_grey(path: Path) -> None:
    _smooth("L", (50, 44)).save(path, "PNG")


def _save_deep_grey(path: Path) -> None:
    values = np.asarray(_smooth("L", (50, 44))).astype(np.uint16) * 257
    Image.fromarray(values).save(path, "PNG")


def _logits_of_card(export: Export, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """The logits that the code block computes for image.jpg in the export's folder."""
    card = (export.folder / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    monkeypatch.chdir(export.folder)
    monkeypatch.syspath_prepend(str(export.folder))
    monkeypatch.delitem(sys.modules, "image_rgb", raising=False)
    names: dict[str, Any] = {}
    exec(block, names)
    logits: torch.Tensor = names["logits"]
    return logits


def _logits_of_tlopt(export: Export) -> torch.Tensor:
    pixels = decode(export.folder / "image.jpg", size=export.store_size, reading=export.reading)
    views = eval_views(
        torch.from_numpy(pixels[None].copy()), resolution=export.resolution, mean=export.mean, std=export.std
    )
    with torch.inference_mode():
        logits: torch.Tensor = load_network(export, torch.device("cpu"))(views)[0]
    return logits


@pytest.mark.parametrize("save", [_save_turned_jpeg, _save_transparent, _save_grey, _save_deep_grey])
@pytest.mark.parametrize("resize", ["crop", "stretch"])
def test_the_code_block_preprocesses_images_as_tlopt_does(
    save: Callable[[Path], None], resize: str, exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = exporter(make_point(), resize)
    save(export.folder / "image.jpg")
    torch.testing.assert_close(
        _logits_of_card(export, monkeypatch), _logits_of_tlopt(export), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"head_layers": 2, "head_width": 5, "head_dropout": 0.25},
        {"backbone": "mobilenet_v3_small"},
        {"backbone": "efficientnet_lite0"},
        {"backbone": "timm:vit_tiny_patch16_224", "resolution": 48},
        {"backbone": "timm:convnext_atto"},
        {"backbone": "timm:resnet18d@0.25"},
        {"backbone": "vit_b_16@0.25", "resolution": 48},
    ],
    ids=lambda changes: changes.get("backbone", "searched head"),
)
def test_the_code_block_builds_the_network_that_tlopt_builds(
    changes: dict[str, Any], exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    if changes.get("backbone", "").startswith(("timm:", "efficientnet_lite")):
        pytest.importorskip("timm")
    export = exporter(make_point(**changes), "crop")
    _save_grey(export.folder / "image.jpg")
    torch.testing.assert_close(
        _logits_of_card(export, monkeypatch), _logits_of_tlopt(export), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize(
    ("backbone", "call", "head"),
    [
        (
            "vit_b_16",
            "torchvision.models.vit_b_16(image_size=224)",
            "net.heads.head = nn.Linear(in_features=768",
        ),
        (
            "inception_v3",
            "torchvision.models.inception_v3(init_weights=False, aux_logits=False, transform_input=True)",
            "net.fc = nn.Linear(in_features=2048",
        ),
        ("vgg16", "torchvision.models.vgg16()", "net.classifier[6] = nn.Linear(in_features=4096"),
    ],
)
def test_the_code_block_has_the_arguments_of_each_family(
    backbone: str, call: str, head: str, export: Export
) -> None:
    code = plain_torch_code(
        replace(export, point=make_point(backbone=backbone), resolution=224, store_size=256)
    )
    assert call in code
    assert head in code


def test_a_width_that_its_library_has_no_arguments_for_is_loaded_as_a_program(export: Export) -> None:
    code = plain_torch_code(replace(export, point=make_point(backbone="vgg11_bn@0.25")))

    assert 'torch.export.load("model.pt2")' in code
    assert "torchvision.models" not in code


def test_numbers_are_in_per_cent_with_one_decimal(export: Export) -> None:
    card = card_of(make_contents(planted()), export)
    assert "| → trial 12 | 3 | 92.0 ± 1.0 % | 91.0 ± 1.0 % |" in card
    assert "| linear probe | 3 | 82.0 ± 2.0 % | 81.0 ± 2.0 % |" in card


def test_log_loss_is_a_number(export: Export) -> None:
    verdict = make_verdict([make_row("trial 12", (0.91, 0.92, 0.93))], objective="log_loss", test_readings=0)
    assert "| → trial 12 | 3 | 0.0800 ± 0.0100 | — |" in card_of(make_contents(verdict), export)


def test_the_card_says_that_a_default_was_chosen(export: Export) -> None:
    card = card_of(make_contents(make_verdict(DEFAULTS)), export)
    assert "No searched point is ahead of plain fine-tuning on validation; the default is chosen." in card
    assert "linear probe" not in card


@pytest.mark.parametrize(
    ("readings", "sentence"),
    [
        (0, "The test images were not used."),
        (1, "The test images were evaluated once, after the choice."),
        (3, "The test images were evaluated 3 times, after the choice."),
    ],
)
def test_the_card_says_how_often_the_test_images_were_evaluated(
    readings: int, sentence: str, export: Export
) -> None:
    verdict = replace(planted(), test_readings=readings)
    assert sentence in card_of(make_contents(verdict), export)


def test_without_test_images_the_headline_warns_that_its_number_is_optimistic(export: Export) -> None:
    verdict = make_verdict([make_row("trial 12", (0.91, 0.92, 0.93))], test_readings=0)
    assert "Validation accuracy **92.0 ± 1.0 %**; the point was selected by this number" in card_of(
        make_contents(verdict), export
    )


def test_the_card_of_a_network_trained_once_more_does_not_claim_its_numbers(export: Export) -> None:
    contents = make_contents(planted())
    again = replace(contents.trained, seed=99, images="training and validation images")
    card = card_of(replace(contents, trained=again), export)
    assert "trained once more, on the training and validation images" in card


def test_class_names_do_not_break_the_markdown(export: Export) -> None:
    assert r"rose, tulip \| \*wild\*, dandelion" in card_of(make_contents(planted()), export)


def test_depths_are_given_with_the_number_of_blocks(export: Export) -> None:
    card = card_of(make_contents(planted()), export)

    assert "| `transfer_depth` | 0 of 9 |" in card
    assert "| `norm_depth` | 0 of 9 | batch-norm layers of trained blocks up to this depth keep" in card


def test_the_card_is_written_to_the_folder(export: Export) -> None:
    assert (export.folder / "README.md").read_text(encoding="utf-8") == card_of(
        make_contents(planted()), export
    )


def planted_predictions() -> Predictions:
    """Ten test images: two roses predicted as tulips, one confidently; one tulip predicted as a dandelion."""
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
    predicted = np.array([0, 0, 1, 1, 1, 1, 1, 2, 2, 2])
    probability = np.array([0.9, 0.9, 0.6, 0.99, 0.9, 0.9, 0.9, 0.7, 0.9, 0.9])
    return Predictions(
        source=Source(point={}, seed=11, fingerprints={}),
        split="test",
        class_names=CLASS_NAMES,
        files=tuple(f"{index}, odd.jpg" for index in range(10)),
        labels=labels,
        predicted=predicted,
        probability=probability,
        true_probability=1 - probability,
        thumbnails=np.zeros((0, 96, 96, 3), dtype=np.uint8),
        thumbnail_of=np.zeros(0, dtype=np.int64),
    )


def test_the_card_lists_weak_classes_and_confused_pairs(export: Export) -> None:
    contents = replace(make_contents(planted()), predictions=planted_predictions())

    card = card_of(contents, export)

    assert "The network here predicts 3 of 10 test images wrongly; `mistakes.csv` lists them." in card
    weakest_first = [line for line in card.splitlines() if line.endswith("% |")]
    rows = [line for line in weakest_first if re.match(r"\| (rose|tulip|dandelion)", line)]
    assert rows == [
        "| rose | 4 | 50.0 % | 100.0 % |",
        r"| tulip \| \*wild\* | 4 | 75.0 % | 60.0 % |",
        "| dandelion | 2 | 100.0 % | 66.7 % |",
    ]
    assert r"- rose as tulip \| \*wild\*: 2 images, 50.0 % of the class" in card
    assert "mean probability of the predicted class is 85.9 %, and 70.0 % are right" in card


def test_the_card_counts_trials_of_an_earlier_study_apart(export: Export) -> None:
    contents = make_contents(planted())
    follow_up = replace(contents, spend=replace(contents.spend, n_carried=12))

    text = "The search ran 60 trials (50 complete, 10 pruned)"
    assert f"{text}. Its best points" in card_of(contents, export)
    assert (
        f"{text} and had 12 trials of an earlier study, whose cost is not included. Its best points"
        in card_of(follow_up, export)
    )


def test_the_card_of_a_network_without_mistakes_mentions_no_list(export: Export) -> None:
    predictions = planted_predictions()
    perfect = replace(predictions, predicted=predictions.labels)

    card = card_of(replace(make_contents(planted()), predictions=perfect), export)

    assert "The network here predicts all 10 test images correctly." in card
    assert "mistakes.csv" not in card


@pytest.mark.parametrize(("split", "n_said"), [("test", 1), ("val", 0)])
def test_mistakes_on_test_images_that_are_recorded_elsewhere_are_missed(
    split: SplitName, n_said: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = Source.of(make_point(), 11, {})

    assert known_predictions(tmp_path / "run.safetensors", split, source) is None

    assert caplog.text.count("are not on this machine; the model card will not list mistakes") == n_said


def test_without_recorded_predictions_the_card_has_no_section_on_mistakes(export: Export) -> None:
    assert "What it gets wrong" not in card_of(make_contents(planted()), export)


def test_an_export_lists_its_mistakes_most_confident_first(tmp_path: Path) -> None:
    point = make_point()
    weights = save_untrained(point, tmp_path / "run.safetensors", n_classes=len(CLASS_NAMES))
    contents = replace(make_contents(planted(point)), predictions=planted_predictions())

    folder = write_export(tmp_path / "best", contents, weights_file=weights, overwrite=False)
    write_export(tmp_path / "best", contents, weights_file=weights, overwrite=True)  # the file is an export's

    with (folder / "mistakes.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert [row[:4] for row in rows[1:]] == [
        ["3, odd.jpg", "rose", "tulip | *wild*", "0.99"],
        ["7, odd.jpg", "tulip | *wild*", "dandelion", "0.7"],
        ["2, odd.jpg", "rose", "tulip | *wild*", "0.6"],
    ]
