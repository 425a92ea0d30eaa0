"""Fit of a network to training images: which images, which rows, and what is stored and printed."""

import errno
import io
import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from finished import CLASS_NAMES, make_contents, make_point, planted, save_untrained
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from tlopt.app.fit import draw_figure
from tlopt.app.fit_tables import comparison_shown
from tlopt.cli.main import app
from tlopt.data.load import load_data
from tlopt.errors import DataError, SpecError
from tlopt.exports.write import write_export
from tlopt.insight.fit import measure_fit
from tlopt.insight.images import SourceImages, TrainingImages
from tlopt.insight.measures import chosen
from tlopt.insight.record import COLUMNS, Fit, FitRow, by_fit, fit_sentence
from tlopt.model.weights import load_weights
from tlopt.spec.sections import DataSpec


def fit(*probes: float, leep: float | None = None, backbone: str = "net") -> Fit:
    rows = tuple(FitRow(name=f"b{i}", n_features=4, values={"linear_probe": p}) for i, p in enumerate(probes))
    return Fit(
        backbone=backbone,
        weights="W",
        resolution=32,
        n_images=100,
        n_classes=4,
        blocks=rows,
        network=FitRow(name="network", n_features=4, values={**rows[-1].values, "leep": leep}),
        warnings=("LEEP: 3 images",),
    )


def test_a_fit_survives_storage_with_four_digits() -> None:
    stored = json.loads(json.dumps(fit(0.512345, 0.75, leep=-1.23456).as_dict()))

    assert Fit.from_dict(stored) == fit(0.5123, 0.75, leep=-1.235)
    assert Fit.from_dict(json.loads(json.dumps(fit(0.5).as_dict()))).network.values["leep"] is None


def test_the_sentence_names_the_highest_block() -> None:
    assert fit_sentence(fit(0.5, 0.7, 0.6)) == (
        "net: linear probe 60.0 % on its last block, highest on block 2 (70.0 %)"
    )
    assert fit_sentence(fit(0.5, 0.6)) == "net: linear probe 60.0 % on its last block, where it is highest"


def test_networks_are_ordered_by_one_measure_and_those_without_it_come_last() -> None:
    fits = [fit(0.5, backbone="c"), fit(0.9, leep=-2.0, backbone="a"), fit(0.7, leep=-1.0, backbone="b")]

    assert [each.backbone for each in by_fit(fits, "linear_probe")] == ["a", "b", "c"]
    assert [each.backbone for each in by_fit(fits, "leep")] == ["b", "a", "c"]


def test_only_training_images_of_the_first_split_are_read(
    image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = DataSpec(source=str(image_folder))
    data = load_data(spec, seed=0)
    images = TrainingImages.of(data, spec)
    read: set[int] = set()

    class Watched:
        def __init__(self, pixels: object) -> None:
            self.pixels = pixels

        def __getitem__(self, indices: np.ndarray) -> np.ndarray:
            read.update(indices.tolist())
            return self.pixels[indices]  # type: ignore[index]

    plain = TrainingImages.pixels
    monkeypatch.setattr(TrainingImages, "pixels", lambda *a, **k: Watched(plain(*a, **k)))
    weights = load_weights("resnet18", "none")
    found = measure_fit(weights, images, chosen(["knn", "leep"]), resolution=32, device=torch.device("cpu"))

    assert read == set(data.splits[0].train.tolist())
    assert not read & set(data.splits[0].val.tolist())
    assert (found.n_images, len(found.blocks)) == (len(read), 9)
    assert found.network.values == {"knn": found.blocks[-1].values["knn"], "leep": None}
    assert "LEEP: the network's own classifier is not known" in found.warnings


def test_one_training_image_of_each_class_is_too_few(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(3):
            value = 40 * i + 100 * (name == "b")
            Image.new("RGB", (8, 8), (value, 0, 0)).save(tmp_path / name / f"{i}.png")
    spec = DataSpec(source=str(tmp_path))

    with pytest.raises(DataError, match="2 training images are too few to measure a fit, with at most one"):
        TrainingImages.of(load_data(spec, seed=0), spec)


def test_measures_of_the_whole_network_alone_have_neither_table_nor_figure(tmp_path: Path) -> None:
    from rich.console import Console

    from tlopt.app import fit as fits
    from tlopt.app.fit_tables import fits_shown

    row = FitRow(name="b", n_features=4, values={})
    alone = replace(
        fit(0.5), blocks=(row,), network=FitRow(name="network", n_features=4, values={"leep": -1.5})
    )
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(fits_shown("photos", [alone]))

    assert console.export_text().splitlines() == [
        "the whole network, nats: LEEP -1.5",
        "note: LEEP: 3 images",
    ]
    assert fits.draw_figure([alone], tmp_path / "f.png", title="") is None
    assert fit_sentence(alone) == "net: LEEP -1.5 nats on the whole network"


def test_the_table_of_all_measures_without_a_source_fits_eighty_columns() -> None:
    from rich.console import Console

    from tlopt.app.fit_tables import fit_blocks_table, ranking_table

    values = {column.name: -0.1234 for column in COLUMNS if column.name not in ("leep", "nce", "emd")}
    rows = tuple(FitRow(name="blocks.0.0", n_features=1280, values=values) for _ in range(17))
    shown = fit_blocks_table("photos", replace(fit(0.5), blocks=rows, network=rows[-1]))
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(shown)

    many = Console(width=80, record=True, file=io.StringIO())
    named = {**values, "leep": -1.234, "nce": -1.234}
    network = FitRow(name="network", n_features=1280, values=named)
    many.print(
        ranking_table("photos", [replace(fit(0.5), backbone="efficientnet_lite0", network=network)] * 2)
    )

    assert "…" not in (text := many.export_text())
    assert text.split().count("-1.23") == 4
    (last,) = [line for line in console.export_text().splitlines() if line.strip().startswith("17 ")]
    assert last.split() == ["17", "blocks.0.0", "1280", "-12.3*", "-12.3*", *["-0.123*"] * 5]


def test_fewer_images_are_of_each_class_in_proportion(image_folder: Path) -> None:
    spec = DataSpec(source=str(image_folder))
    data = load_data(spec, seed=0)
    images = TrainingImages.of(data, spec, images_max=9)

    assert len(images.indices) == 9
    assert set(images.labels.tolist()) == set(data.labels.tolist())


def test_the_command_stores_the_fit_with_a_study_and_status_of_the_search_stays(
    study_text: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from optuna_dashboard import get_note

    from tlopt.app.handle import open_session
    from tlopt.app.workflow import begin, prepare

    monkeypatch.chdir(tmp_path)
    Path("s.toml").write_text(study_text(name="s"))
    before = CliRunner().invoke(app, ["fit", "s.toml", "--measures", "knn,h_score", "--json"])
    session = open_session("s.toml")
    begin(session, prepare(session))
    after = CliRunner().invoke(app, ["fit", "s", "--measures", "knn,h_score", "--figure", "f.png"])

    assert (before.exit_code, after.exit_code) == (0, 0), (before.output, after.output)
    (printed,) = json.loads(before.stdout.splitlines()[-1])["fits"]
    assert printed["measures"] == ["knn", "h_score"]
    assert Path("exports/s.fit.png").is_file()
    assert Path("f.png").is_file()
    stored = session.optuna_study().user_attrs["tlopt:fit"]
    assert stored["fits"] == [printed]
    assert stored["summary"].startswith("resnet18: 5-NN ")
    assert "- fit before training: resnet18: 5-NN " in get_note(session.optuna_study())
    assert "one standard error of an accuracy is about" in after.stdout


@pytest.mark.parametrize(
    ("figure", "message"),
    [
        ("f.jpeg2", "--figure f.jpeg2: the name of a figure ends in .png, .svg, .pdf"),
        ("there.png", "--figure there.png: there.png is in the way"),
        ("file/f.png", r"--figure file/f.png: \S*/file is in the way; name another file"),
    ],
)
def test_a_figure_that_cannot_be_written_is_refused_before_anything_is_read(
    figure: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.png").mkdir()
    Path("file").touch()

    ended = CliRunner().invoke(app, ["fit", "digits", "--figure", figure])

    assert isinstance(ended.exception, SpecError)
    assert re.search(message, str(ended.exception))


def test_a_figure_on_a_full_disk_is_told_with_its_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("tlopt.plots.fit.draw_fit", full)

    with pytest.raises(SpecError, match=r"--figure \S*f.png: cannot be written: No space left on device"):
        draw_figure([fit(0.5)], tmp_path / "f.png", title="")


def test_a_folder_of_images_needs_no_study(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlopt.app import fit as fits

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tlopt.model.weights.load_weights", lambda name, _: load_weights(name, "none"))
    request = fits.FitRequest(backbones=("resnet18", "mobilenet_v3_small"), resolution=32)
    found = fits.measure(fits.open_subject(str(image_folder), request), ["knn"])

    assert {each.backbone for each in found} == {"resnet18", "mobilenet_v3_small"}
    assert not list(tmp_path.iterdir())


def test_images_of_the_source_add_a_similarity_by_block(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlopt.app.fit_tables import fit_lines

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tlopt.model.weights.load_weights", lambda name, _: load_weights(name, "none"))
    options = ["--backbones", "resnet18", "--resolution", "32", "--measures", "knn,emd", "--json"]
    ended = CliRunner().invoke(
        app,
        ["fit", str(image_folder), "--source", str(image_folder), *options],
    )

    (printed,) = json.loads(ended.stdout.splitlines()[-1])["fits"]
    of_images = printed["n_images"], printed["n_classes"]
    assert printed["source"] == {
        "name": str(image_folder),
        "n_images": of_images[0],
        "n_classes": of_images[1],
    }
    # the same images are drawn from the same folder
    assert [row["values"][1] for row in printed["blocks"]] == [pytest.approx(1.0, abs=1e-3)] * 9
    read = Fit.from_dict(printed)
    assert read.as_dict() == printed
    images, classes = of_images
    assert f"EMD similarity is to {images} images in {classes} classes of {image_folder}" in fit_lines(read)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--source", "nowhere"], r"^--source: .*nowhere"),
        (["--measures", "emd"], "^--measures: emd needs images of the source: name them with --source"),
        (["--source", "digits", "--against", "exports/x"], "--source adds a measure of fit, and --against"),
    ],
)
def test_a_source_that_cannot_be_used_is_refused_by_its_option(
    options: list[str], message: str, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlopt.model.weights.load_weights", lambda name, _: load_weights(name, "none"))
    ended = CliRunner().invoke(app, ["fit", str(image_folder), "--backbones", "resnet18", *options])

    assert isinstance(ended.exception, (SpecError, DataError))
    assert re.search(message, str(ended.exception))


def test_a_class_of_the_source_has_up_to_twenty_images_however_many_classes_there_are(
    image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlopt.insight.images.IMAGES_MAX", 4)
    monkeypatch.setattr("tlopt.insight.images._PER_SOURCE_CLASS_MAX", 5)
    spec = DataSpec(source=str(image_folder))
    images = SourceImages.of(load_data(spec, seed=0), spec)

    assert len(images.labels) == 5 * len(images.data.class_names)


def test_unknown_measures_are_refused_before_images_are_read(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ended = CliRunner().invoke(app, ["fit", str(tmp_path / "empty"), "--measures", "hscore"])

    assert 'there is no "hscore"' in str(ended.exception)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--images", "4", r"^--images = 4 is too few: these classes need"),
        ("--resolution", "9999999", r"^--resolution = 9999999 is not allowed: a whole number from 8 to 2048"),
    ],
)
def test_a_number_out_of_range_is_refused_by_its_option(
    option: str, value: str, message: str, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlopt.model.weights.load_weights", lambda name, _: load_weights(name, "none"))
    ended = CliRunner().invoke(app, ["fit", str(image_folder), "--backbones", "resnet18", option, value])

    assert re.search(message, str(ended.exception))


def test_by_default_each_class_has_images_however_many_there_are(
    image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlopt.app import fit as fits

    monkeypatch.setattr("tlopt.insight.images.IMAGES_MAX", 4)
    monkeypatch.setattr("tlopt.model.weights.load_weights", lambda name, _: load_weights(name, "none"))
    images = fits.open_subject(str(image_folder), fits.FitRequest(backbones=("resnet18",))).images

    assert set(images.labels) == set(range(len(images.data.class_names)))
    assert len(images.labels) == 3 * len(images.data.class_names)


def test_the_pretrained_network_is_compared_with_an_export(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlopt.app import fit as fits

    weights = load_weights("resnet18", "none")
    point = make_point()
    trained = save_untrained(point, tmp_path / "run.safetensors", n_classes=len(CLASS_NAMES))
    export = write_export(
        tmp_path / "best", make_contents(planted(point)), weights_file=trained, overwrite=False
    )
    monkeypatch.setattr("tlopt.model.weights.load_weights", lambda name, _: weights)
    subject = fits.open_subject(str(image_folder), fits.FitRequest(backbones=("resnet18",)))
    seen = fits.compare_with_export(subject, export)

    assert (len(seen.rows), len(seen.untrained)) == (9, 9)
    assert seen.n_images == len(subject.images.indices)
    assert all(row.cka is not None and row.cka < 0.9999 for row in (*seen.rows[3:], *seen.untrained[3:]))
    assert seen.rows != seen.untrained
    assert seen.warnings == ()


def test_of_a_shortened_export_the_blocks_that_are_left_are_compared(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlopt.app import fit as fits

    weights = load_weights("resnet18", "none")
    point = make_point(backbone_depth=3, neck_layers=1, neck_width=8)
    trained = save_untrained(point, tmp_path / "run.safetensors", n_classes=len(CLASS_NAMES))
    export = write_export(
        tmp_path / "best", make_contents(planted(point)), weights_file=trained, overwrite=False
    )
    monkeypatch.setattr("tlopt.model.weights.load_weights", lambda name, _: weights)
    subject = fits.open_subject(str(image_folder), fits.FitRequest(backbones=("resnet18",)))
    seen = fits.compare_with_export(subject, export)

    assert [row.name for row in seen.rows] == ["stem", "layer1.0", "layer1.1"]
    assert [row.name for row in seen.untrained] == ["stem", "layer1.0", "layer1.1"]


def test_a_network_that_sees_all_images_alike_has_no_similarity_and_the_table_says_so(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlopt.app import fit as fits

    weights = load_weights("resnet18", "none")
    point = make_point()
    trained = save_untrained(point, tmp_path / "run.safetensors", n_classes=len(CLASS_NAMES))
    tensors = load_file(trained)
    save_file({name: torch.zeros_like(t) if "bn" in name else t for name, t in tensors.items()}, trained)
    export = write_export(
        tmp_path / "best", make_contents(planted(point)), weights_file=trained, overwrite=False
    )
    monkeypatch.setattr("tlopt.model.weights.load_weights", lambda name, _: weights)
    subject = fits.open_subject(str(image_folder), fits.FitRequest(backbones=("resnet18",)))
    seen = fits.compare_with_export(subject, export)
    console = Console(width=120, file=io.StringIO())
    console.print(comparison_shown("photos", seen))
    printed = console.file.getvalue()  # type: ignore[attr-defined]

    assert all((row.cka, row.overlap, row.forward, row.back) == (None,) * 4 for row in seen.rows)
    assert "nan" not in printed
    assert "note: –: a network's features are the same for all images, or not finite" in printed
    assert "NaN" not in json.dumps([asdict(row) for row in seen.rows])
