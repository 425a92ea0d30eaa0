"""What a line of `benchmarks.compact.sizes` is measured with, and the study files of its searches."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

LITE0 = "efficientnet_lite0"  # has ImageNet weights
USUAL_WAYS = ("l1", "stage 2", "stage 2 all fast", "tlopt", "tlopt taught")
WAYS = (*USUAL_WAYS, "longer")  # the network that is fine-tuned whole, trained for as long as pruned ones
DEPTHS = (0.35, 0.5, 0.65)  # of the first structures
PARTLY = {  # as the default of that name
    "neck_layers": 1,
    "neck_width": 128,
    "neck_convolution": "plain",
    "lr": 0.001,
    "lr_ratio": 1.0,
    "norm_depth": 0.0,
}
HEADER = """
name = "sizes"
[data]
source = '{source}'
[model]
backbone = "{backbone}"
weights = '{weights}'
[budget]
trials = 1
epochs = {epochs}
[search]
resolution = {resolution}
batch_size = 16
"""
RATES = """
lr = { log = [3e-4, 1e-2] }
lr_ratio = { log = [0.1, 1.0] }
norm_depth = { choice = [0.0, 1.0] }
"""
STRUCTURE = """
backbone_depth = { uniform = [0.3, 0.8] }
neck_layers = { int = [0, 1] }
neck_width = { choice = [64, 128, 256] }
neck_convolution = { choice = ["plain", "separable"] }
freeze_depth = { uniform = [0.0, 1.0] }
"""
WITHIN = """
backbone_depth = {{ uniform = [0.4, 0.7] }}
neck_layers = {{ int = [0, 1] }}
neck_width = {{ choice = [128, 256, 512] }}
neck_kernel = {{ choice = [1, 3] }}
neck_convolution = {{ choice = ["plain", "separable"] }}
freeze_depth = {{ uniform = [0.0, 1.0] }}
[constraints]
multiply_adds = {limit}
"""
# The first structures within a limit: shares of the blocks, kernels of the neck, and rates.
FIRST = {
    "slow": (((0.59, 3), (0.59, 1), (0.53, 3)), {"lr": 0.001, "lr_ratio": 1.0}),
    "fast": (((0.59, 3), (0.59, 1), (0.53, 3), (0.7, 1)), {"lr": 0.0045, "lr_ratio": 0.4}),
}


def first_structures(name: str, resolutions: Sequence[int]) -> Iterator[dict[str, Any]]:
    """The first structures of a search within a limit; four fifths of their blocks are frozen.

    Args:
        resolutions: listed ones. The slow structures have the highest; the fast ones come in each, highest
            first.
    """
    sides = sorted(resolutions, reverse=True)
    shapes, rates = FIRST[name]
    for side in sides[: 1 if name == "slow" else None] or [0]:
        for depth, kernel in shapes:
            convolution = "separable" if kernel > 1 else "plain"
            neck = {"neck_width": 256, "neck_kernel": kernel, "neck_convolution": convolution}
            depths = {"backbone_depth": depth, "freeze_depth": 0.8 * depth}
            yield {**PARTLY, **depths, **neck, **rates} | ({"resolution": side} if side else {})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a cell is searched, trained and pruned; the defaults are those of the first runs."""

    resolution: int = 48
    epochs: int = 5
    train: int = 160
    val: int = 150
    test: int = 400
    rates: int = 1  # trials of rates for the whole network, beside its defaults
    structures: int = 4  # structures that are trained
    limit: float = 0.0  # share of the whole network's multiply-adds that a structure may have; 0: any
    resolutions: Sequence[int] = ()  # that a structure within the limit may have; (): `resolution`
    first: str = "slow"  # or "fast": which structures begin the search within a limit
    end: float = 0.4  # share of multiply-adds after the rounds
    rounds: int = 2
    round_epochs: int = 3
    last_epochs: int = 0  # of the last round; 0: as of the others
    ways: Sequence[str] = USUAL_WAYS

    @property
    def of_whole(self) -> tuple[int, ...]:
        """Those that the search of rates for the whole network depends on."""
        return self.resolution, self.epochs, *self.counts.values(), self.rates

    @property
    def counts(self) -> dict[str, int]:
        """Images per split."""
        return {"train": self.train, "val": self.val, "test": self.test}

    @property
    def all_epochs(self) -> int:
        """Epochs of a network with those of all its rounds."""
        last = self.last_epochs or self.round_epochs
        return self.epochs + (self.rounds - 1) * self.round_epochs + last

    @property
    def folder(self) -> str:
        """The folder of its images; "" for those of the first runs."""
        return "" if self.counts == Settings().counts else "-".join(map(str, self.counts.values()))

    @property
    def recorded(self) -> dict[str, Any]:
        """What a line says about them: those that differ from the first runs."""
        usual = asdict(Settings())
        found = {key: value for key, value in asdict(self).items() if value != usual[key]}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}
