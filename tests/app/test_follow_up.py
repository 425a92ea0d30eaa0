"""Follow-up studies take over trials of an earlier study once and say so; refusals say how to begin one."""

import contextlib
import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
import tiny
from optuna.trial import FrozenTrial, TrialState
from typer.testing import CliRunner

from tlopt.analysis.format import best_sentence
from tlopt.app import deliver, serve, workflow
from tlopt.app.handle import Session, open_session
from tlopt.cli.main import app
from tlopt.confirmation.candidates import find_candidates
from tlopt.errors import NotReady, SpecError, StudyChanged
from tlopt.search.fixed_study import fixed_study
from tlopt.spec.outcome import Outcome
from tlopt.spec.point import Point
from tlopt.storage import attributes, studies
from tlopt.storage.attributes import TrialRecord
from tlopt.worker.shutdown import Interrupt

NO_PRUNER = '[pruner]\nkind = "none"\n'
NARROW, WIDE = "lr = { log = [1e-3, 1e-2] }", "lr = { log = [1e-4, 1.0] }"
FROM_NARROW = 'warm_start = "narrow"'

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, study_text: Callable[..., str]) -> Write:
    """Writes a study file: `write("narrow", NARROW, trials=4, head='warm_start = "..."')`."""
    return _writer(tmp_path, study_text)


def _writer(folder: Path, study_text: Callable[..., str]) -> Write:
    def file(name: str, search: str, *, trials: int = 3, head: str = "", **changes: Any) -> Path:
        text = study_text(name=name, trials=trials, search=search, tables=NO_PRUNER, **changes)
        path = folder / f"{name}.toml"
        path.write_text(tiny.lighter(text, head=head))
        return path

    return file


@pytest.fixture(autouse=True)
def _nothing_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)


def plant(patch: pytest.MonkeyPatch) -> None:
    """Each trial has two epochs, and the rate decides its value."""
    tiny.plant(patch, lambda point: [0.25, round(1 - point.lr, 6)])


@pytest.fixture(scope="module")
def narrow(
    study_text: Callable[..., str], tmp_path_factory: pytest.TempPathFactory, cache_folder: Path
) -> Path:
    """A folder with a database in which the study "narrow" has its four trials."""
    folder = tmp_path_factory.mktemp("narrow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLOPT_CACHE", str(cache_folder))
        plant(patch)
        work(_writer(folder, study_text)("narrow", NARROW, trials=4), f"sqlite:///{folder}/studies.db")
    return folder


@pytest.fixture
def url(narrow: Path, tmp_path: Path) -> str:
    """A copy of the database with the study "narrow"."""
    return copied(f"sqlite:///{narrow}/studies.db", tmp_path / "studies.db")


def copied(url: str, to: Path) -> str:
    """The URL of a copy of an SQLite database."""
    with (
        contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as source,
        contextlib.closing(sqlite3.connect(to)) as copy,
    ):
        source.backup(copy)
    return f"sqlite:///{to}"


def session(file: Path | str, url: str) -> Session:
    return open_session(file, storage_url=url)


def work(file: Path, url: str) -> Sequence[FrozenTrial]:
    """The study's trials after a worker in this process has spent its budget."""
    here = session(file, url)
    serve.run_studies([(here, workflow.prepare(here))], stage="search", interrupt=Interrupt(), n_threads=1)
    return here.optuna_study().get_trials(deepcopy=False)


def begin(file: Path, url: str) -> optuna.Study:
    """The study before a worker has taken a trial."""
    here = session(file, url)
    return workflow.begin(here, workflow.prepare(here), n_threads=1)[0]


def trials_of(name: str, url: str) -> Sequence[FrozenTrial]:
    return studies.open_existing(studies.open_storage(url), name).get_trials(deepcopy=False)


def origins(trials: Sequence[FrozenTrial]) -> list[tuple[str, int]]:
    found = [trial.user_attrs[attributes.ORIGIN] for trial in trials if attributes.ORIGIN in trial.user_attrs]
    return [(origin["study"], origin["trial"]) for origin in found]


ALL = [("narrow", number) for number in range(4)]


def test_trials_are_carried_over_once_and_the_budget_is_the_new_studys_own(write: Write, url: str) -> None:
    before = trials_of("narrow", url)
    file = write("wide", WIDE, trials=3, head=FROM_NARROW)

    begin(file, url)
    after = work(file, url)

    assert origins(after) == ALL
    assert [trial.value for trial in after[:4]] == [trial.value for trial in before]
    assert [trial.params["lr"] for trial in after[:4]] == [trial.params["lr"] for trial in before]
    records = [TrialRecord.from_frozen(trial) for trial in after]
    assert [record.outcome for record in records] == [Outcome.CARRIED] * 4 + [Outcome.COMPLETE] * 3
    assert not {record.label for record in records[4:]} & {"linear probe", "plain fine-tuning"}
    seen = session(file, url).snapshot()
    assert (seen.n_finished, seen.search_cost.n, seen.search_cost.epochs) == (3, 3, 6)


def test_check_ends_with_the_refusal_that_run_would_give(write: Write, url: str) -> None:
    file = write("narrow", WIDE, trials=4)
    with pytest.raises(StudyChanged) as refused:
        begin(file, url)

    checked = CliRunner().invoke(app, ["check", str(file), "--storage", url])

    assert (checked.exit_code, str(checked.exception)) == (1, str(refused.value))


def test_a_changed_range_is_refused_with_the_lines_that_begin_the_follow_up(write: Write, url: str) -> None:
    file = write("narrow", WIDE, trials=4)
    with pytest.raises(StudyChanged, match=r"search\.lr: study has") as refused:
        begin(file, url)

    lines = str(refused.value).partition("begin it with these lines:\n")[2].splitlines()
    assert lines == ['name = "narrow-2"', FROM_NARROW]
    file.write_text(file.read_text().replace('name = "narrow"', "\n".join(lines)))

    assert origins(begin(file, url).get_trials(deepcopy=False)) == ALL
    assert session(file, url).study.name == "narrow-2"


def test_check_says_before_the_start_what_status_says_after_it(write: Write, url: str) -> None:
    file = write("wide", "lr = { log = [1e-4, 5e-3] }", head=FROM_NARROW)
    left_out = [each.params["lr"] for each in trials_of("narrow", url) if each.params["lr"] > 5e-3]
    assert 0 < len(left_out) < 4
    before = session(file, url)
    (said,) = [
        line
        for line in workflow.check_lines(before, workflow.prepare(before))
        if line.startswith("warm start: ")
    ]

    begin(file, url)
    shown = CliRunner().invoke(app, ["status", "wide", "--storage", url]).output
    plain = json.loads(CliRunner().invoke(app, ["status", "wide", "--storage", url, "--json"]).output)

    n = 4 - len(left_out)
    assert said.startswith(f"warm start: {n} trial")
    assert f"{len(left_out)} left out: lr {left_out[0]:.3g} lies outside 0.0001 to 0.005" in said
    assert said in " ".join(shown.split())
    assert f"0 of 3 trials; {n} carried over" in shown
    assert re.fullmatch(
        r"best so far: [\d.]+ % \(trial \d of narrow, carried over\)", best_sentence(before.snapshot())
    )
    assert plain["warm_start"]["summary"] == plain["warm_start"]["said"] == said.removeprefix("warm start: ")
    assert [(row["outcome"], row["origin"]["study"]) for row in plain["trials"]] == [
        ("carried_over", "narrow")
    ] * n
    assert (plain["trials_finished"], plain["cost"]["search"]["n"]) == (0, 0)


def test_a_carried_trial_is_a_candidate_and_is_reported_under_its_first_name(write: Write, url: str) -> None:
    file = write("wide", WIDE, head=FROM_NARROW)
    opened = begin(file, url)
    here = session(file, url)
    best = min(trials_of("narrow", url), key=lambda each: (-each.value, each.number))  # type: ignore[operator]

    found = find_candidates(here.study, opened, workflow.prepare(here).facts)
    report = deliver.write_report(here, file.with_suffix(".html"), overwrite=False).read_text()

    name = f"trial {best.number} of narrow"
    labels = [row.label for row in found]
    assert [label for label in labels if label.endswith("of narrow")]
    assert name in labels or best.user_attrs.get(attributes.LABEL) in labels
    assert name in report
    assert "0 of 3 trials" in report


def test_trials_of_other_epochs_are_trained_again_as_trials_of_the_study(write: Write, url: str) -> None:
    trials = work(write("longer", WIDE, trials=4, epochs=3, head=FROM_NARROW), url)

    records = [TrialRecord.from_frozen(trial) for trial in trials]
    assert [record.outcome for record in records] == [Outcome.COMPLETE] * 4
    assert (records[0].origin or {})["study"] == "narrow"
    assert records[0].notes[0].startswith("the point of trial")
    assert all(record.counts for record in records)


def test_an_exports_point_is_trained_again(write: Write, url: str, tmp_path: Path) -> None:
    here = session("narrow", url)
    point = Point.stored({**(here.snapshot().trials[0].point or {}), "lr": 0.5}, "it")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/config.toml").write_text(fixed_study(here.study, point, name="taken", exported=True))

    file = write("wide", WIDE, head=f'warm_start = "{tmp_path}/taken"')
    (waiting,) = begin(file, url).get_trials(deepcopy=False)
    shutil.rmtree(tmp_path / "taken")  # it has been read

    assert (waiting.state, waiting.system_attrs["fixed_params"]["lr"]) == (TrialState.WAITING, 0.5)
    assert begin(file, url).get_trials(deepcopy=False)[0].number == 0


# What cannot be


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("wide", 'warm_start: "wide" is this study itself'),
        ("narrow.confirm", '"narrow.confirm" is a confirmation.*name its search: "narrow"'),
        ("na rrow", '"na rrow" is no name of a study, and no folder either'),
        ("narow", r"wide\.toml: warm_start: .* 'narow' .*there are: narrow.; name one that has begun, or"),
        ("./narrow", r"wide\.toml: warm_start: \./narrow is not an export: it has no config\.toml"),
    ],
)
def test_what_cannot_be_begun_with_is_said(named: str, message: str, write: Write, url: str) -> None:
    file = write("wide", WIDE, head=f'warm_start = "{named}"')

    with pytest.raises(SpecError, match=message):
        begin(file, url)


def test_two_studies_that_name_each_other_need_one_that_is_begun_without(write: Write, url: str) -> None:
    one, two = (write("one", WIDE, head='warm_start = "two"'), write("two", WIDE, head='warm_start = "one"'))

    with pytest.raises(SpecError, match="there is no study 'two'"):
        begin(one, url)
    with pytest.raises(SpecError, match="there is no study 'one'"):
        begin(two, url)


def test_a_study_without_a_finished_trial_gives_nothing_yet(write: Write, url: str) -> None:
    begin(write("empty", WIDE), url)

    with pytest.raises(NotReady, match="no trial of 'empty' has finished yet: wait for some"):
        begin(write("wide", WIDE, head='warm_start = "empty"'), url)

    assert "wide" not in optuna.get_all_study_names(studies.open_storage(url))


def test_a_warm_start_that_is_named_too_late_is_refused(write: Write, url: str) -> None:
    begin(write("wide", WIDE), url)

    with pytest.raises(StudyChanged, match=r"study has none, here is narrow\. It is read once"):
        begin(write("wide", WIDE, head=FROM_NARROW), url)


def test_a_study_that_was_deleted_meanwhile_leaves_what_was_carried_over(write: Write, url: str) -> None:
    file = write("wide", WIDE, head=FROM_NARROW)
    begin(file, url)
    optuna.delete_study(study_name="narrow", storage=studies.open_storage(url))

    assert origins(begin(file, url).get_trials(deepcopy=False)) == ALL


def test_a_start_that_was_killed_half_way_goes_on_and_says_what_is_gone(
    write: Write, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    add = optuna.Study.add_trial

    def add_two(study: optuna.Study, trial: FrozenTrial) -> None:
        if len(study.get_trials(deepcopy=False)) == 2:
            raise KeyboardInterrupt
        add(study, trial)

    file = write("wide", WIDE, head=FROM_NARROW)
    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "add_trial", add_two)
        with pytest.raises(KeyboardInterrupt):
            begin(file, url)
    assert origins(trials_of("wide", url)) == ALL[:2]
    copy = copied(url, file.with_name("copy.db"))
    optuna.delete_study(study_name="narrow", storage=studies.open_storage(copy))

    assert origins(begin(file, url).get_trials(deepcopy=False)) == ALL
    assert origins(begin(file, copy).get_trials(deepcopy=False)) == ALL[:2]
    assert "narrow is gone: 2 of its trials were not carried over" in caplog.text
