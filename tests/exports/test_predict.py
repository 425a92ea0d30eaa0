"""Predictions use the export's preprocessing; unreadable files get an error and stop nothing."""

import csv
import io
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from finished import CLASS_NAMES
from typer.testing import CliRunner

from tlopt.app import deliver
from tlopt.app.deliver import predict_csv
from tlopt.cli.main import app
from tlopt.data.decode import decode
from tlopt.data.sources import entry
from tlopt.data.views import eval_views
from tlopt.errors import DataError
from tlopt.exports.predict import Prediction, find_images, predict, write_predictions_csv
from tlopt.exports.read import Export, load_network

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path, image_folder: Path) -> Path:
    """Five images in two folders, one of them damaged, and files that are not images."""
    root = tmp_path / "new"
    for name in ("red/00.png", "red/01.png", "blue/deep/00.png", "blue/deep/01.PNG"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image_folder / "red" / Path(name).name.lower(), root / name)
    (root / "broken.jpg").write_bytes(b"no image")
    (root / "notes.txt").write_text("no image")
    (root / ".hidden.png").write_bytes(b"")
    return root


def test_folders_are_searched_recursively(folder: Path) -> None:
    found = [str(path.relative_to(folder)) for path in find_images([folder]).files]
    assert found == ["blue/deep/00.png", "blue/deep/01.PNG", "broken.jpg", "red/00.png", "red/01.png"]


def test_a_given_file_is_used_whatever_its_extension_and_only_once(folder: Path) -> None:
    named = [folder / "notes.txt", folder / "red", folder / "red" / "00.png"]
    assert find_images(named).files == (folder / "notes.txt", folder / "red/00.png", folder / "red/01.png")


def test_other_files_in_a_folder_are_reported(folder: Path) -> None:
    (folder / "scan").write_bytes(b"without a suffix")
    (notice,) = find_images([folder]).notices
    assert notice == (f"{folder}: 2 files without a known image extension left out: notes.txt, scan")


def test_heic_files_that_cannot_be_read_here_are_left_out_with_the_cure(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "phone.HEIC").write_bytes(b"")
    monkeypatch.setattr(entry, "EXTENSIONS", entry.PLAIN_EXTENSIONS)
    (notice,) = find_images([folder]).notices
    assert "notes.txt, phone.HEIC; 1 is a HEIC image" in notice
    assert "tlopt[heif]" in notice


def test_left_out_files_are_logged(folder: Path, export: Export, caplog: pytest.LogCaptureFixture) -> None:
    list(predict(export, [folder], CPU))
    assert "left out: notes.txt" in caplog.text


@pytest.mark.timeout(60)
def test_broken_links_and_named_pipes_have_a_row_with_the_reason(folder: Path, export: Export) -> None:
    (folder / "dangling.png").symlink_to("nowhere.png")
    os.mkfifo(folder / "pipe.png")
    errors = {row.path.name: row.error for row in predict(export, [folder], CPU) if row.error}
    assert "a link to nowhere.png, which is not there" in errors["dangling.png"]
    assert "a named pipe" in errors["pipe.png"]


def test_a_folder_as_output_is_refused(folder: Path, export: Export) -> None:
    with pytest.raises(DataError, match=f"{folder} cannot be written: Is a directory"):
        predict_csv(export.folder, [folder], folder)


def test_a_folder_without_images_is_an_error(tmp_path: Path, export: Export) -> None:
    with pytest.raises(DataError, match="no images in"):
        predict(export, [tmp_path], CPU)


def test_a_path_that_does_not_exist_is_an_error_before_any_work(tmp_path: Path, export: Export) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        predict(export, [tmp_path / "absent"], CPU)


def test_probabilities_are_the_softmax_of_the_logits_of_the_exports_view(
    folder: Path, export: Export
) -> None:
    (row,) = predict(export, [folder / "red/00.png"], CPU)
    pixels = decode(row.path, size=export.store_size, reading=export.reading)
    views = eval_views(
        torch.from_numpy(pixels[None].copy()), resolution=export.resolution, mean=export.mean, std=export.std
    )
    with torch.inference_mode():
        expected = load_network(export, CPU)(views).softmax(1)[0]
    torch.testing.assert_close(torch.tensor(row.probabilities), expected, rtol=0, atol=1e-6)
    assert row.label == CLASS_NAMES[int(expected.argmax())]
    assert row.probability == max(row.probabilities)


def test_the_batch_size_changes_no_label_and_no_order(folder: Path, export: Export) -> None:
    by_batch = [list(predict(export, [folder], CPU, batch_size=size)) for size in (1, 2, 64)]
    labels = [[(row.path, row.label) for row in rows] for rows in by_batch]
    assert labels[0] == labels[1] == labels[2]


def test_a_damaged_file_gets_an_error_and_stops_nothing(folder: Path, export: Export) -> None:
    rows = list(predict(export, [folder], CPU, batch_size=2))
    assert [row.path.name for row in rows if row.error] == ["broken.jpg"]
    assert [row.label in CLASS_NAMES for row in rows] == [True, True, False, True, True]


def test_a_batch_of_damaged_files_raises_nothing(folder: Path, export: Export) -> None:
    (row,) = predict(export, [folder / "broken.jpg"], CPU)
    assert (row.label, row.probability, row.probabilities) == ("", 0.0, ())
    assert "broken.jpg cannot be decoded" in row.error


def _written(rows: list[Prediction]) -> tuple[int, list[list[str]]]:
    file = io.StringIO(newline="")
    _, n_unreadable = write_predictions_csv(rows, file, ("a", "b, c"))
    return n_unreadable, list(csv.reader(io.StringIO(file.getvalue(), newline="")))


def test_the_table_has_a_column_for_each_class() -> None:
    row = Prediction(path=Path("x.png"), label="b, c", probability=0.75, probabilities=(0.25, 0.75))
    assert _written([row]) == (
        0,
        [
            ["path", "label", "probability", "p:a", "p:b, c", "error"],
            ["x.png", "b, c", "0.75", "0.25", "0.75", ""],
        ],
    )


def test_an_unreadable_file_has_an_empty_label_and_its_error_in_the_table() -> None:
    row = Prediction(path=Path("x.png"), label="", probability=0.0, probabilities=(), error="too dark")
    n_unreadable, (_, written) = _written([row])
    assert (n_unreadable, written) == (1, ["x.png", "", "", "", "", "too dark"])


@pytest.mark.skipif(sys.platform == "darwin", reason="file names are always valid Unicode there")
def test_a_file_name_that_is_invalid_unicode_can_be_written() -> None:
    row = Prediction(
        path=Path(os.fsdecode(b"\xff.png")), label="a", probability=1.0, probabilities=(1.0, 0.0)
    )
    _, (_, written) = _written([row])
    assert written[0] == "\\xff.png"


@pytest.mark.parametrize(
    ("results", "status", "said"),
    [
        ([""], 0, ""),
        (["", "too dark", ""], 3, "1 file could not be read"),
        (["x", "y"], 1, "2 files could not"),
    ],
)
def test_the_exit_status_reports_unreadable_files(
    results: list[str], status: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        Prediction(path=Path("x"), label="", probability=0.0, probabilities=(), error=error)
        if error
        else Prediction(path=Path("x"), label="a", probability=1.0, probabilities=(1.0,))
        for error in results
    ]
    monkeypatch.setattr(deliver, "predict", lambda *_, **__: iter(rows))
    monkeypatch.setattr("tlopt.exports.read.read_export", lambda _: SimpleNamespace(class_names=("a",)))
    output = tmp_path / "labels.csv"

    ended = CliRunner().invoke(app, ["predict", str(tmp_path), "images", "--output", str(output)])

    assert ended.exit_code == status
    assert said in ended.stderr
    assert len(output.read_text().splitlines()) == 1 + len(rows)
