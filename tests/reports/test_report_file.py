"""A report is written beside the export; only a report of tlopt is replaced."""

import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from reported import text, trial
from typer.testing import CliRunner

import tlopt
from tlopt import spec
from tlopt.app import deliver
from tlopt.cli.main import app
from tlopt.errors import SpecError, StorageError
from tlopt.storage import attributes, studies


def store(folder: Path) -> str:
    """A database with one study of ours, as a worker leaves it."""
    url = f"sqlite:///{folder}/tlopt.db"
    opened = optuna.create_study(
        storage=studies.open_storage(url), study_name="flowers", direction="maximize"
    )
    written = {
        attributes.STUDY_FILE: text(),
        attributes.DIGEST: spec.loads(text(), "x").digest,
        attributes.SEMANTICS: spec.SEMANTICS_VERSION,
        attributes.RECORD_FORMAT: attributes.FORMAT_VERSION,
    }
    for name, value in written.items():
        opened.set_user_attr(name, value)
    opened.add_trials([trial(0.1, minute=i) for i in range(3)])
    return url


def test_the_command_writes_the_file_once_and_loads_no_torch(tmp_path: Path) -> None:
    url = store(tmp_path)
    code = (
        "import sys\nfrom tlopt.cli import main as cli\n"
        f"sys.argv = ['tlopt', 'report', 'flowers', '--storage', {url!r}]\n"
        "try:\n    cli.main()\nexcept SystemExit as ended:\n    print(ended.code)\n"
        "print('torch' in sys.modules)"
    )

    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )

    assert ended.stdout.splitlines() == ["wrote exports/flowers.html", "0", "False"], ended.stderr
    assert "Not confirmed yet" in (tmp_path / "exports" / "flowers.html").read_text(encoding="utf-8")


def test_a_file_that_is_there_is_replaced_only_when_asked(tmp_path: Path) -> None:
    url, file = store(tmp_path), tmp_path / "mine.html"
    file.write_text("kept", encoding="utf-8")
    command = ["report", "flowers", str(file), "--storage", url]

    refused = CliRunner().invoke(app, command)
    assert isinstance(refused.exception, SpecError)
    assert file.read_text(encoding="utf-8") == "kept"

    assert CliRunner().invoke(app, [*command, "--overwrite"]).exit_code == 0
    assert file.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_python_writes_the_same_report_and_renews_it_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = store(tmp_path)
    monkeypatch.chdir(tmp_path)

    written = Path("exports/flowers.html")
    assert tlopt.report("flowers", storage=url) == written
    assert "Not confirmed yet" in written.read_text(encoding="utf-8")
    assert tlopt.report("flowers", storage=url) == written  # its own file is renewed
    Path("mine.html").touch()
    with pytest.raises(SpecError, match=r"mine\.html exists and is not a report of tlopt"):
        tlopt.report("flowers", "mine.html", storage=url)
    with pytest.raises(
        SpecError, match=r"absent/mine\.html: the folder absent does not exist; create it first"
    ):
        tlopt.report("flowers", "absent/mine.html", storage=url)
    assert tlopt.report("flowers", "mine.html", storage=url, overwrite=True) == Path("mine.html")
    assert Path("mine.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_report_where_earlier_versions_wrote_it_is_renewed_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, former = store(tmp_path), Path("flowers.html")
    monkeypatch.chdir(tmp_path)
    former.write_text("<head><title>flowers: tlopt report</title>", encoding="utf-8")

    assert deliver.report_beside(Path("exports/flowers")) == former  # for `run`, too
    assert tlopt.report("flowers", storage=url) == former
    assert "Not confirmed yet" in former.read_text(encoding="utf-8")
    assert not Path("exports").exists()

    former.write_text("somebody's page", encoding="utf-8")
    assert tlopt.report("flowers", storage=url) == Path("exports/flowers.html")
    assert former.read_text(encoding="utf-8") == "somebody's page"


def test_the_report_of_an_export_in_the_working_directory_lies_beside_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "best" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "best")

    assert deliver.report_beside(Path()) == tmp_path / "best.html"
    monkeypatch.chdir(tmp_path / "best" / "inner")
    assert deliver.report_beside(Path("..")) == tmp_path / "best.html"


def test_a_point_of_a_later_version_is_named_with_what_to_do(tmp_path: Path) -> None:
    url = store(tmp_path)
    opened = optuna.load_study(study_name="flowers", storage=url)
    later = trial(0.99)
    later.set_user_attr(attributes.POINT, {**later.user_attrs[attributes.POINT], "head_kind": "cosine"})
    opened.add_trial(later)
    number = opened.get_trials()[-1].number

    with pytest.raises(StorageError, match=rf"trial {number} of flowers: .* key head_kind .*upgrade"):
        tlopt.report("flowers", tmp_path / "x.html", storage=url)
    assert not (tmp_path / "x.html").exists()
