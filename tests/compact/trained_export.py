"""The export of a finished run."""

from pathlib import Path

from finished import make_row, make_verdict

from tlopt.exports.contents import collect_contents, trained_of
from tlopt.exports.write import write_export
from tlopt.training.loop import Epoch
from tlopt.training.run import Run
from tlopt.trial.history import History
from tlopt.trial.workspace import Workspace


def write_trained(workspace: Workspace, run: Run, epochs: list[Epoch], study_file: str, root: Path) -> Path:
    """The export of a finished run, in `root`."""
    workspace.save_weights(run, root / "run.safetensors")
    verdict = make_verdict([make_row("trial 0", (0.9,), point=run.point, number=0)])
    summary = trained_of(History.of(epochs), run.seed, "training images")
    contents = collect_contents(workspace, study_file, verdict, (), summary)
    return write_export(root / "stripes", contents, weights_file=root / "run.safetensors", overwrite=False)
