"""Soups and ensembles of a study's confirmed runs, as exports."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tlopt.app.deliver import default_folder, write_with
from tlopt.app.handle import Session
from tlopt.app.workflow import judge, study_threads
from tlopt.confirmation import candidates as confirmation
from tlopt.exports.listed import remember_export
from tlopt.spec.objectives import TITLES, value_words
from tlopt.storage import attributes
from tlopt.system.words import counted

if TYPE_CHECKING:
    from tlopt.confirmation.combined import Combined, Kind
    from tlopt.exports.combine import Combination
    from tlopt.trial.workspace import Workspace


def combined_folder(session: Session, kind: "Kind") -> Path:
    """The default folder of such an export: exports/NAME-soup or exports/NAME-ensemble."""
    folder = default_folder(session)
    return folder.with_name(f"{folder.name}-{kind}")


def export_combined(
    session: Session,
    workspace: "Workspace",
    folder: Path,
    wanted: "Combination",
    *,
    overwrite: bool = False,
    onnx: bool = False,
) -> "Combined":
    """Write a soup or an ensemble of the confirmed runs to `folder`; return it with its numbers.

    The test images are read for it unless the database has the result already.

    Raises:
        SpecError, NotReady: there are no two runs that go together; says why.
        DataError: something exists there that may not be replaced.
    """
    from tlopt.exports.combine import known_test, make, measure
    from tlopt.exports.contents import collect_contents
    from tlopt.exports.onnx import write_onnx
    from tlopt.exports.read import read_export
    from tlopt.exports.write import check_target
    from tlopt.training.devices import choose_device

    check_target(folder, overwrite=overwrite)
    workspace = workspace.on_device(choose_device())
    opened, search = session.confirmation(), session.optuna_study()
    verdict = judge(session, workspace)
    with study_threads(session):
        found = make(workspace, verdict, wanted, session.weights_file)
        stored = confirmation.combined_test(opened, found.combined.name)
        known = known_test(verdict, found.combined, stored)
        made = measure(workspace, found, session.weights_file, known)
    if known is None and made.combined.test:
        confirmation.record_combined_test(opened, made.combined.name, made.combined.test)
        verdict = replace(verdict, test_readings=verdict.test_readings + 1)
    contents = collect_contents(
        workspace,
        session.file_text,
        verdict,
        attributes.records_of(search),
        made.trained,
        runs=session.snapshot().runs,
        predictions=made.predictions,
        combined=made.combined,
    )
    write_with(folder, contents, made.save, overwrite=overwrite)
    if onnx:
        write_onnx(read_export(folder), folder)
    remember_export(search, folder, verdict.chosen.label, wanted.kind)
    return made.combined


def summary(combined: "Combined", objective: str) -> str:
    """As in "soup of 4 of 9 runs: accuracy 86.0 % on validation, 85.2 % on test"."""
    n = len(combined.members)
    of = f"{n} of {counted(len(combined.additions), 'run')}" if combined.additions else counted(n, "run")
    measured = {"validation": combined.val, "test": combined.test}
    words = [f"{value_words(row[objective], objective)} on {split}" for split, row in measured.items() if row]
    alone = "; no mean was as good on validation, so it is the network that is exported alone"
    return (
        f"{combined.kind} of {of}"
        + (f": {TITLES[objective]} {', '.join(words)}" if words else "")
        + (alone if combined.is_single else "")
    )
