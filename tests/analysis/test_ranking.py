"""The best points as configs, and all trials as a table: in order, complete, and read back exactly."""

import csv
import io
import json
import tomllib
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from finished import make_point, make_row
from optuna.trial import TrialState, create_trial
from typer.testing import CliRunner

from tlopt import spec
from tlopt.analysis import table as trials_table
from tlopt.analysis.ranking import configs_text, pareto, ranking, write_files
from tlopt.cli.main import app
from tlopt.confirmation.verdict import Verdict
from tlopt.errors import MissingExtra, NotReady, SpecError, StorageError
from tlopt.model.facts import BackboneFacts
from tlopt.search.fixed_study import only_point
from tlopt.spec.point import Point
from tlopt.storage import attributes, studies
from tlopt.storage.attributes import TrialRecord

TEXT = """
name = "flowers"
seed = 7
[data]
source = "data/flowers"
[model]
backbone = "resnet18"
weights = "none"
[budget]
trials = 60
epochs = 2
[search]
lr = { log = [1e-4, 1.0] }
"""
FACTS = BackboneFacts(
    n_blocks={"resnet18": 9},
    transferable=False,
    resolution={"resnet18": 32},
    batch_norm={"resnet18": True},
    plain_lr={"resnet18": {}},
)


@pytest.fixture
def study() -> spec.Study:
    return spec.loads(TEXT, "x.toml")


def trial(number: int, value: float | None, seconds: float = 1.0, **changes: Any) -> optuna.trial.FrozenTrial:
    """A planted trial: complete with `value`, or pruned without."""
    result = {"outcome": "complete" if value is not None else "pruned", "seconds": seconds, "metrics": {}}
    made = create_trial(
        state=TrialState.COMPLETE if value is not None else TrialState.PRUNED,
        value=value,
        user_attrs={
            attributes.TRIAL_RESULT: result | {"metrics": {"log_loss": 0.5}},
            attributes.POINT: make_point(lr=0.001 * (number + 1)).as_dict(),
            **changes,
        },
    )
    made.number = number
    return made


def record(number: int, value: float | None, seconds: float = 1.0, **changes: Any) -> TrialRecord:
    return TrialRecord.from_frozen(trial(number, value, seconds, **changes))


TRIALS = [(0, 0.5, 9.0), (1, 0.9, 5.0), (2, None, 1.0), (3, 0.7, 2.0), (4, 0.6, 3.0)]


@pytest.fixture
def url(tmp_path: Path, study: spec.Study) -> str:
    """A database with the study and its trials."""
    url = f"sqlite:///{tmp_path}/tlopt.db"
    opened = studies.create_or_open(studies.open_storage(url), study, file_text=TEXT, fingerprints={})
    opened.add_trials([trial(*row) for row in TRIALS])
    return url


def run(url: str, *arguments: str) -> str:
    result = CliRunner().invoke(app, ["export", "flowers", "--storage", url, *arguments])
    if result.exception:
        raise result.exception
    return result.stdout


def test_before_the_confirmation_the_search_ranks_by_value(study: spec.Study) -> None:
    found = ranking(study, [record(*row) for row in TRIALS], None)

    assert [(row.label, row.value) for row in found] == [
        ("trial 1", 0.9),
        ("trial 3", 0.7),
        ("trial 4", 0.6),
        ("trial 0", 0.5),
    ]


def test_a_point_of_a_later_version_is_named_with_what_to_do(url: str) -> None:
    opened = optuna.load_study(study_name="flowers", storage=url)
    point = {**make_point().as_dict(), "head_kind": "cosine"}
    opened.add_trial(trial(5, 0.95, **{attributes.POINT: point}))

    with pytest.raises(StorageError, match=r"trial 5 of flowers: .* key head_kind .*upgrade"):
        run(url, "--config")


def test_confirmed_points_come_first_in_their_own_order(study: spec.Study) -> None:
    rows = [
        make_row("trial 3", [0.8, 0.8], [0.7, 0.7], number=3),
        make_row("plain fine-tuning", [0.6, 0.6], number=-1),
        make_row("trial 1", [0.5, 0.5], number=1),
    ]
    verdict = Verdict(
        study="flowers",
        objective="accuracy",
        direction="maximize",
        rows=tuple(rows),
        n_expected=6,
        n_finished=6,
        test_readings=1,
    )

    found = ranking(study, [record(*row) for row in TRIALS], verdict)

    assert [(row.label, row.trial) for row in found] == [
        ("trial 3", 3),
        ("plain fine-tuning", None),
        ("trial 1", 1),
        ("trial 4", 4),
        ("trial 0", 0),
    ]
    assert found[0].confirmed["val"].mean == pytest.approx(0.8)
    assert found[0].confirmed["test"].mean == pytest.approx(0.7)
    assert (found[0].value, found[1].value) == (0.7, None)


def test_nobody_beats_a_point_of_the_front_in_value_and_work_alike(study: spec.Study) -> None:
    rows = ranking(study, [record(*row) for row in TRIALS], None)

    assert [row.label for row in pareto(study, rows)] == ["trial 3", "trial 1"]


def test_the_front_of_a_loss_goes_the_other_way() -> None:
    study = spec.loads(TEXT.replace("seed = 7", 'seed = 7\nobjective = "log_loss"'), "x.toml")
    rows = ranking(study, [record(*row) for row in TRIALS], None)

    assert [row.label for row in rows] == ["trial 0", "trial 4", "trial 3", "trial 1"]
    assert [row.label for row in pareto(study, rows)] == ["trial 3", "trial 4", "trial 0"]


@pytest.mark.parametrize("form", ["toml", "json", "yaml"])
def test_a_config_reads_back_to_its_point(study: spec.Study, form: Any) -> None:
    rows = ranking(study, [record(*row) for row in TRIALS], None)

    text = configs_text(study, rows, form, several=False)

    if form != "toml":
        value = json.loads(text) if form == "json" else yaml.safe_load(text)
        assert (value["label"], value["value"], value["confirmed"]) == ("trial 1", 0.9, {})
        config = value["config"]
    else:
        config = tomllib.loads(text)
    assert config["search"]["lr"] == 0.002
    decoded = spec.Study.model_validate(config)
    assert only_point(decoded, FACTS) == Point.from_dict(make_point(lr=0.002).as_dict())


def test_several_do_not_go_into_one_toml_file(study: spec.Study) -> None:
    rows = ranking(study, [record(*row) for row in TRIALS], None)

    with pytest.raises(SpecError, match="--format json"):
        configs_text(study, rows, "toml", several=True)


def test_several_go_into_a_folder_by_rank_and_replace_nothing(study: spec.Study, tmp_path: Path) -> None:
    rows = ranking(study, [record(*row) for row in TRIALS], None)[:2]

    paths = write_files(study, rows, "toml", tmp_path / "best", overwrite=False)

    assert [path.name for path in paths] == ["1-trial-1.toml", "2-trial-3.toml"]
    assert spec.load(paths[1]).search["lr"].value == 0.004  # type: ignore[union-attr]
    with pytest.raises(SpecError, match="exists"):
        write_files(study, rows[:1], "toml", tmp_path / "best", overwrite=False)
    write_files(study, rows[:1], "toml", tmp_path / "best", overwrite=True)


# The commands


def test_top_prints_so_many_for_scripts(url: str) -> None:
    assert [row["label"] for row in json.loads(run(url, "--top", "3", "--format", "json"))] == [
        "trial 1",
        "trial 3",
        "trial 4",
    ]
    assert len(yaml.safe_load(run(url, "--top", "99", "--format", "yaml"))) == 4


def test_config_and_top_1_print_one_study_file(url: str) -> None:
    assert run(url, "--config") == run(url, "--top", "1")
    assert tomllib.loads(run(url, "--config"))["name"] == "flowers-trial-1"


def test_pareto_prints_the_front_and_top_its_head(url: str) -> None:
    front = [row["label"] for row in json.loads(run(url, "--pareto", "--format", "json"))]

    assert front == ["trial 3", "trial 1"]
    assert len(json.loads(run(url, "--pareto", "--top", "1", "--format", "json"))) == 1


def test_top_into_a_folder_names_the_files(url: str, tmp_path: Path) -> None:
    said = run(url, str(tmp_path / "best"), "--top", "2")

    assert said.split() == [str(tmp_path / "best" / name) for name in ("1-trial-1.toml", "2-trial-3.toml")]


def test_without_a_complete_trial_there_is_nothing_to_print(tmp_path: Path, study: spec.Study) -> None:
    url = f"sqlite:///{tmp_path}/none.db"
    studies.create_or_open(studies.open_storage(url), study, file_text=TEXT, fingerprints={})

    with pytest.raises(NotReady, match="no complete trial"):
        run(url, "--top", "3")


def test_all_trials_go_into_a_table(url: str, tmp_path: Path) -> None:
    run(url, "--all", str(tmp_path / "trials.csv"))

    with (tmp_path / "trials.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["number"] for row in table] == ["0", "1", "2", "3", "4"]
    assert [row["outcome"] for row in table] == ["complete"] * 2 + ["pruned"] + ["complete"] * 2
    assert table[1]["value"] == "0.9"
    assert table[1]["metric.log_loss"] == "0.5"
    assert table[1]["point.lr"] == "0.002"
    assert datetime.fromisoformat(table[1]["started"])
    assert list(csv.DictReader(io.StringIO(run(url, "--all", "-")))) == table
    with pytest.raises(SpecError, match="exists"):
        run(url, "--all", str(tmp_path / "trials.csv"))


def test_the_suffix_says_the_format(url: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"\.csv or \.parquet"):
        run(url, "--all", str(tmp_path / "trials.xlsx"))


def test_parquet_has_types(url: str, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra parquet")
    run(url, "--all", str(tmp_path / "trials.parquet"))

    table = parquet.read_table(tmp_path / "trials.parquet").to_pydict()
    assert table["value"] == [0.5, 0.9, None, 0.7, 0.6]
    assert table["number"] == [0, 1, 2, 3, 4]


def test_without_pyarrow_the_extra_is_named(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials_table, "find_spec", lambda _: None)

    with pytest.raises(MissingExtra, match=r"tlopt\[parquet\]"):
        run(url, "--all", str(tmp_path / "trials.parquet"))


def test_a_study_without_trials_is_a_head_line(tmp_path: Path) -> None:
    file = io.StringIO()

    trials_table.write_csv(trials_table.rows([]), file)

    assert file.getvalue().startswith("number,outcome,value")
