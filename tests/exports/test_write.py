"""Exports are complete or absent, read back as written, and replace nothing but exports."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from finished import CLASS_NAMES, make_contents, make_point, make_row, make_verdict, planted, save_untrained
from safetensors.torch import load_file

from tlopt import spec
from tlopt.data.decode import Reading
from tlopt.errors import DataError, NotReady, WeightsError
from tlopt.exports import write
from tlopt.exports.read import Export, load_network, read_export
from tlopt.exports.write import write_export
from tlopt.spec.default_names import PLAIN_LABEL
from tlopt.spec.search_keys import STRUCTURE_KEYS

FILES = {
    "config.toml",
    "study.toml",
    "weights.safetensors",
    "classes.txt",
    "preprocessing.json",
    "image_rgb.py",
    "result.json",
    "README.md",
    "learning_curves.png",
    "confusion.png",
}


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "weights.safetensors"
    return save_untrained(make_point(), path, n_classes=3)


@pytest.fixture
def folder(tmp_path: Path, weights_file: Path) -> Path:
    """An export that a test may damage."""
    return write_export(
        tmp_path / "best", make_contents(planted()), weights_file=weights_file, overwrite=False
    )


def test_an_export_has_exactly_its_files(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == FILES
    assert {path.name for path in folder.parent.iterdir()} == {"best"}


def test_whoever_may_read_one_file_of_an_export_may_read_all(folder: Path) -> None:
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1


def test_one_epoch_has_no_learning_curves(tmp_path: Path, weights_file: Path) -> None:
    contents = make_contents(planted())
    single = replace(contents.trained, train_loss=(0.5,), val={})

    folder = write_export(
        tmp_path / "one", replace(contents, trained=single), weights_file=weights_file, overwrite=False
    )

    assert {path.name for path in folder.iterdir()} == FILES - {"learning_curves.png"}
    assert "learning_curves.png" not in (folder / "README.md").read_text()


def test_an_export_reads_back_as_written(folder: Path) -> None:
    export = read_export(folder)
    study = make_contents(planted()).study
    assert export == Export(
        folder=folder,
        point=make_point(),
        class_names=CLASS_NAMES,
        reading=Reading(resize="crop"),
        store_size=37,
        resolution=32,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        weights_label="none",
        weights_digest="none",
        digest=study.digest,
    )


@pytest.mark.filterwarnings("ignore:Glyph")
def test_class_names_may_contain_anything_but_a_line_break(tmp_path: Path, weights_file: Path) -> None:
    names = ("two words", "näme", "花", "a\u2028b", "a\rb", " ", "#", "5 $", '"quoted", comma')
    contents = make_contents(planted(), class_names=names)
    folder = write_export(tmp_path / "best", contents, weights_file=weights_file, overwrite=False)
    assert read_export(folder).class_names == names


def test_a_class_name_with_a_line_break_is_refused(tmp_path: Path, weights_file: Path) -> None:
    contents = make_contents(planted(), class_names=("a", "b\nc", "z"))
    with pytest.raises(DataError, match="line break"):
        write_export(tmp_path / "best", contents, weights_file=weights_file, overwrite=False)


def test_the_config_fixes_the_chosen_point(folder: Path) -> None:
    study = spec.load(folder / "config.toml")
    values = {name: dimension.value for name, dimension in study.search.items()}  # type: ignore[union-attr]
    expected = {key: value for key, value in asdict(make_point()).items() if key not in STRUCTURE_KEYS}
    assert {**values, "backbone": study.model.backbones[0]} == expected  # a whole network says no structure


def test_the_result_names_study_seed_and_images_of_the_network(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    assert (result["trial"], result["label"], result["network"]["seed"]) == (12, "trial 12", 11)
    assert result["data"] == {"fingerprint": "0123456789abcdef", "n_classes": 3, "n_search": 90, "n_test": 30}
    assert result["verdict"]["gain"][PLAIN_LABEL]["test"]["mean"] == pytest.approx(0.02)
    spend = result["spend"]
    assert (spend["trials"], spend["epochs"], spend["seconds"]) == (
        {"complete": 50, "pruned": 10},
        90,
        9000.0,
    )
    assert spend["confirmation"]["epochs"] == 18
    assert spend["total"] == {"n": 69, "epochs": 108, "seconds": 10800.0, "processor_seconds": 15000.0}


def test_the_network_read_back_has_the_written_tensors_in_eval_mode(export: Export) -> None:
    network = load_network(export, torch.device("cpu"))
    written = load_file(export.folder / "weights.safetensors")
    read = network.net.state_dict()
    assert not network.training
    assert read.keys() == written.keys()
    assert all(torch.equal(read[name], written[name]) for name in written)


def test_loading_a_network_does_not_change_the_random_generator(export: Export) -> None:
    before = torch.random.get_rng_state()
    load_network(export, torch.device("cpu"))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("name", ["weights.safetensors", "classes.txt", "preprocessing.json", "result.json"])
def test_a_missing_file_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(NotReady, match=name):
        read_export(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("result.json", "{"),
        ("result.json", "[]"),
        ("result.json", '{"format": 1}'),
        ("preprocessing.json", '{"resize": "crop"}'),
        ("classes.txt", "rose\ntulip\n"),
    ],
)
def test_the_error_for_a_damaged_file_says_so(name: str, content: str, folder: Path) -> None:
    (folder / name).write_text(content)
    with pytest.raises(DataError, match="damaged"):
        read_export(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("store_size", "37"),
        ("store_size", True),
        ("store_size", 8),
        ("store_size", 10**9),
        ("resolution", "32"),
        ("resolution", 31),
        ("mean", [0.5, 0.5]),
        ("mean", [124, 116, 104]),
        ("mean", [float("nan"), 0.5, 0.5]),
        ("std", [0.2, 0.0, 0.2]),
        ("std", "abc"),
        ("bits", 99),
        ("megapixels_max", float("inf")),
    ],
)
def test_a_changed_value_of_the_preprocessing_is_named(key: str, value: object, folder: Path) -> None:
    path = folder / "preprocessing.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(DataError, match=rf"damaged .*preprocessing\.json: {key} = .*export again"):
        read_export(folder)


def test_a_class_name_that_stands_twice_is_refused(folder: Path) -> None:
    (folder / "classes.txt").write_text("rose\nrose\ntulip\n")
    with pytest.raises(DataError, match=r"classes\.txt has a line twice"):
        read_export(folder)


def test_class_names_are_read_alike_from_lines_that_git_ended_with_crlf(folder: Path) -> None:
    path = folder / "classes.txt"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_export(folder).class_names == CLASS_NAMES


def test_an_export_of_a_newer_format_is_refused(folder: Path) -> None:
    (folder / "result.json").write_text('{"format": 99}')
    with pytest.raises(DataError, match="format 99"):
        read_export(folder)


def test_truncated_tensors_are_refused(folder: Path) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(WeightsError, match=r"weights\.safetensors"):
        load_network(read_export(folder), torch.device("cpu"))


def test_tensors_of_another_network_are_refused(folder: Path) -> None:
    save_untrained(make_point(), folder / "weights.safetensors", n_classes=5)
    with pytest.raises(WeightsError, match="does not fit resnet18"):
        load_network(read_export(folder), torch.device("cpu"))


def test_an_export_is_replaced_only_with_overwrite(folder: Path, weights_file: Path) -> None:
    with pytest.raises(DataError, match="--overwrite"):
        write_export(folder, make_contents(planted()), weights_file=weights_file, overwrite=False)
    verdict = make_verdict([make_row("trial 3", (0.5, 0.5, 0.5), number=3)])
    write_export(folder, make_contents(verdict), weights_file=weights_file, overwrite=True)
    assert json.loads((folder / "result.json").read_text())["trial"] == 3
    assert {path.name for path in folder.parent.iterdir()} == {"best"}


def test_a_folder_with_other_files_is_never_replaced(folder: Path, weights_file: Path) -> None:
    (folder / "thesis.tex").write_text("precious")
    with pytest.raises(DataError, match=r"thesis\.tex"):
        write_export(folder, make_contents(planted()), weights_file=weights_file, overwrite=True)
    assert (folder / "thesis.tex").read_text() == "precious"


def test_without_trained_weights_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="tlopt confirm"):
        write_export(
            tmp_path / "best", make_contents(planted()), weights_file=tmp_path / "none", overwrite=False
        )
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_export_and_no_other_files(
    folder: Path, weights_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write, "draw_confusion", full)
    with pytest.raises(DataError, match="No space left"):
        write_export(folder, make_contents(planted()), weights_file=weights_file, overwrite=True)
    assert {path.name for path in folder.parent.iterdir()} == {"best"}
    assert read_export(folder).point == make_point()
