"""The points that a search starts from after the defaults, in the order learnt from recorded runs.

`python -m benchmarks.defaults.portfolio benchmarks/recipes/{results,further}.jsonl` learns it, and a test
compares it with `STARTS`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

# Recipes of benchmarks/recipes that stand for linear probe, plain fine-tuning and kept statistics.
DEFAULT_RECIPES = ("probe", "train, body 1e-3", "kept")


@dataclass(frozen=True, kw_only=True)
class Start:
    """An initial point, in terms that hold for every network and space."""

    recipe: str  # of its recorded runs
    transfer: float = 1.0  # share of the blocks that start pretrained
    freeze: float = 0.0  # share of the blocks
    norm: float = 0.0  # share of the blocks that keep batch-norm statistics
    # rate of pretrained blocks relative to plain fine-tuning's, by optimiser; None: the same
    body_rate: Mapping[str, float] | None = None


KEPT_RATE = {"sgd": 0.1, "adamw": 0.3}  # benchmarks/recipes/README.md

KEPT_STATISTICS = Start(recipe="kept", norm=1.0, body_rate=KEPT_RATE)
# lower blocks pretrained and frozen, upper blocks fresh: "Initial points" in benchmarks/defaults/README.md
PARTLY_FROZEN = Start(recipe="last fifth fresh, others frozen", transfer=0.8, freeze=0.8)

# Leave-one-set-out supports no second one.
STARTS: tuple[Start, ...] = (PARTLY_FROZEN,)
TRIALS_PER_START = 3  # of those that the defaults leave, for each further point
