"""The folders of a study's files, one place for all who write or read them."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Folders:
    """The folders that a study writes to."""

    root: Path  # of all studies, "runs" by default
    study: str

    @property
    def logs(self) -> Path:
        """One JSONL file a trial."""
        return self.root / self.study / "trials"

    @property
    def pictures(self) -> Path:
        """One folder a trial."""
        return self.root / self.study / "pictures"

    def weights_file(self, number: int, replicate: int) -> Path:
        """Trained tensors of a confirmation's run: of a candidate's number and a replicate."""
        return self.root / self.study / "weights" / f"candidate{number}-seed{replicate}.safetensors"

    @property
    def artifacts(self) -> Path:
        """Artifacts shown by optuna-dashboard; one store for all studies."""
        return self.root / "artifacts"
