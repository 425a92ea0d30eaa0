"""The folders of a study's files."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Folders:
    """The folders that a study writes to."""

    root: Path  # folder of all studies, "runs" by default
    study: str

    @property
    def logs(self) -> Path:
        """The trial logs, one JSONL file per trial."""
        return self.root / self.study / "trials"

    @property
    def pictures(self) -> Path:
        """The pictures, one folder per trial."""
        return self.root / self.study / "pictures"

    def weights_file(self, number: int, replicate: int) -> Path:
        """Path of the trained tensors of a confirmation's run, by candidate and replicate."""
        return self.root / self.study / "weights" / f"candidate{number}-seed{replicate}.safetensors"

    def pruned_file(self, index: int) -> Path:
        """Path of the result of a pruning."""
        return self.root / self.study / "weights" / f"pruning{index}.ckpt"

    @property
    def artifacts(self) -> Path:
        """The artifacts that optuna-dashboard shows; one store for all studies."""
        return self.root / "artifacts"
