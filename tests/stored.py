"""A finished study in a database, with planted numbers of many digits, and all screens of it."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from finished import COST, make_contents
from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from reported import IMAGES, text, trial
from rich.console import Console
from typer.testing import CliRunner

import tlopt
from tlopt.analysis.snapshot import Snapshot
from tlopt.app import progress
from tlopt.app.handle import Session, open_session
from tlopt.cli.main import app
from tlopt.confirmation.candidates import add_candidates, record_test
from tlopt.confirmation.companion import open_companion
from tlopt.confirmation.evidence import ODDS_MIN
from tlopt.dashboard import note
from tlopt.exports.card import model_card
from tlopt.exports.write import _describe
from tlopt.search.race import PLAIN, PROBE, Candidate
from tlopt.spec.default_names import PLAIN_LABEL, PROBE_LABEL
from tlopt.spec.point import Point
from tlopt.storage import attributes, studies
from tlopt.training.loop import Epoch

LR = 0.0123456789  # of the point that is chosen
N_VAL, N_TEST = 143, 321
INFEASIBLE = 4  # number of the trial with the best value of all, which breaks a constraint
VIOLATION = 0.3141592653589793
BEST_VALUE = 142 / N_VAL
_BEST = 3
_WHOLE = IntDistribution(PROBE, 10_000_000)


def trials() -> list[FrozenTrial]:
    """Two defaults, two points, a better one that is infeasible, one pruned and one that diverged."""
    ended = [
        trial(100 / N_VAL, label=PROBE_LABEL, lr=0.01, transfer_depth=9, freeze_depth=9),
        trial(101 / N_VAL, label=PLAIN_LABEL, lr=0.001, transfer_depth=9),
        trial(113 / N_VAL, curve=(90 / N_VAL, 113 / N_VAL), lr=0.05, transfer_depth=7, l2_sp=1 / 3),
        trial(120 / N_VAL, curve=(95 / N_VAL, 120 / N_VAL), lr=LR, transfer_depth=8, lr_ratio=2 / 3),
        trial(BEST_VALUE, lr=0.5, transfer_depth=5),
        trial(40 / N_VAL, outcome="pruned", cause="pruned after epoch 1", lr=0.9),
        trial(None, outcome="diverged", cause="diverged in epoch 2: the loss was 1.235e+09", lr=1.0),
    ]
    ended[INFEASIBLE].set_constraint("flops", VIOLATION)
    ended[_BEST].set_constraint("flops", -1.0)
    return ended


def build(url: str, file: Path) -> Session:
    """The study in the database `url`, confirmed over three seeds; its study file is `file`."""
    file_text = text() + "[confirm]\nseeds = 3\npoints = 1\n"
    file.write_text(file_text)
    session = open_session(file, storage_url=url)
    search = studies.create_or_open(
        session.store, session.study, file_text=file_text, fingerprints={"data": "0a"}
    )
    search.set_user_attr(attributes.IMAGES, {**IMAGES, "n_val": N_VAL, "n_test": N_TEST})
    search.add_trials(trials())
    ended = search.get_trials()
    numbers = {0: PROBE, 1: PLAIN, _BEST: _BEST}
    candidates = [_candidate(ended[trial], number) for trial, number in numbers.items()]
    confirmation = open_companion(
        session.store,
        session.study,
        name=session.confirm_name,
        list_of=attributes.CANDIDATES,
        search=search,
        file_text=file_text,
        fingerprints={"data": "0a"},
    )
    add_candidates(confirmation, candidates, session.study, odds=ODDS_MIN)
    for candidate, n_right in zip(candidates, (101, 102, 119), strict=True):
        for replicate in range(3):
            confirmation.add_trial(_run(candidate, replicate, (n_right + replicate) / N_VAL))
    test = [{"accuracy": n / N_TEST, "log_loss": 2 / 3} for n in (250, 251, 253)]
    record_test(confirmation, {candidate.number: test for candidate in candidates})
    return session


def _candidate(stored: FrozenTrial, number: int) -> Candidate:
    label = stored.user_attrs.get(attributes.LABEL) or f"trial {stored.number}"
    return Candidate(number, label, Point.from_dict(stored.user_attrs[attributes.POINT]))


def _run(candidate: Candidate, replicate: int, accuracy: float) -> FrozenTrial:
    result = {
        "outcome": "complete",
        "metrics": {"accuracy": accuracy, "log_loss": 1 - accuracy},
        "seconds": 61 / 7,
    }
    return create_trial(
        state=TrialState.COMPLETE,
        value=accuracy,
        params={"candidate": candidate.number, "replicate": replicate},
        distributions={"candidate": _WHOLE, "replicate": _WHOLE},
        intermediate_values={0: accuracy},
        user_attrs={
            attributes.POINT: candidate.point.as_dict(),
            attributes.TRIAL_RESULT: result,
            attributes.LABEL: candidate.label,
        },
    )


def command(*arguments: str) -> str:
    """The output of a command."""
    found = CliRunner().invoke(app, list(arguments))
    assert found.exit_code == 0, found.output
    return found.output


def screens(session: Session) -> Iterator[tuple[str, str]]:
    """Name and text of everything that people read about a finished study."""
    file, url = session.target, session.url
    yield "status", command("status", file, "--storage", url)
    yield "progress", _progress(session)
    to = Path(file).with_name("report.html")
    command("report", file, str(to), "--storage", url)
    yield "report", to.read_text()
    yield "note", "\n".join(_note(session))
    yield "card", _card(session)
    view = tlopt.open_study(file, storage=url)
    yield "view", repr(view)
    yield "view in a notebook", view._repr_html_()
    verdict = view.verdict
    assert verdict is not None
    yield "verdict", repr(verdict)
    yield "training", _training()
    yield "verdict in a notebook", verdict._repr_html_()


def as_json(session: Session) -> dict[str, Any]:
    """The output of `status --json`."""
    return dict(json.loads(command("status", session.target, "--storage", session.url, "--json")))


def _progress(session: Session) -> str:
    said = io.StringIO()
    console = Console(file=said, width=200)
    seen: Snapshot = session.snapshot()
    progress.show_progress([seen], console)
    progress.show_progress([session.snapshot("confirm")], console)
    return said.getvalue()


def _training() -> str:
    said = io.StringIO()
    epoch = Epoch(
        index=0, train_loss=1.2345678, train_accuracy=1 / 3, val=None, confusion=None, seconds=100 / 7
    )
    progress.follow_training([epoch], Console(file=said, width=200))
    return said.getvalue()


def _note(session: Session) -> Iterator[str]:
    seen = session.snapshot()
    yield from note.note_lines(
        session.study,
        seen.trials,
        images="photos",
        verdict=(),
        picture="/artifacts/0/1",
        chosen=seen.chosen_trial,
    )


def _card(session: Session) -> str:
    verdict = session.verdict()
    assert verdict is not None
    contents = make_contents(verdict)
    return model_card(contents, _describe(Path("export"), contents), COST)


def optuna_best(session: Session) -> int:
    """The number of `study.best_trial`."""
    return optuna.load_study(study_name=session.study.name, storage=session.store).best_trial.number
