"""Records of the fit of networks to images, for printing, drawing and storage; no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tlopt.system.words import counted

_DIGITS = 4  # significant digits that are stored

Unit = Literal["%", "nats", ""]


@dataclass(frozen=True)
class Column:
    """Name of a measure in options and JSON, and its title and unit in tables."""

    name: str
    title: str
    unit: Unit  # "%" for fractions of 1

    def cell(self, value: float | None) -> str:
        """The value for a table; "–" if it is not defined."""
        if value is None:
            return "–"
        if self.unit == "%":
            return f"{100 * value:.1f}"
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"

    @property
    def heading(self) -> str:
        """The title with the unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title


COLUMNS = (
    Column("linear_probe", "linear probe", "%"),
    Column("knn", "5-NN", "%"),
    Column("logme", "LogME", "nats"),
    Column("h_score", "H-score", ""),
    Column("parc", "PARC", ""),
    Column("gbc", "GBC", ""),
    Column("transrate", "TransRate", "nats"),
    Column("leep", "LEEP", "nats"),
    Column("nce", "NCE", "nats"),
    Column("emd", "EMD similarity", ""),
)


@dataclass(frozen=True, kw_only=True)
class FitRow:
    """Values of one block or of the network, by measure name; None if not defined."""

    name: str
    n_features: int
    values: Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class SourceSet:
    """Images of the source that were used."""

    name: str  # as the user named it
    n_images: int
    n_classes: int

    @property
    def sentence(self) -> str:
        """A clause without full stop."""
        images, classes = counted(self.n_images, "image"), counted(self.n_classes, "class", "classes")
        return f"EMD similarity is to {images} in {classes} of {self.name}"


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The fit of one pretrained network to one set of images; for every measure, higher is better."""

    backbone: str
    weights: str
    resolution: int  # pixels per side
    n_images: int
    n_classes: int
    blocks: tuple[FitRow, ...]  # from the input
    network: FitRow  # of a classifier's input, with the measures that need the network's own classifier
    warnings: tuple[str, ...]  # clauses about values that should not be trusted
    source: SourceSet | None = None  # None: its images were not given

    @property
    def columns(self) -> tuple[Column, ...]:
        """The measures that were computed."""
        return tuple(column for column in COLUMNS if column.name in self.network.values)

    @property
    def block_columns(self) -> tuple[Column, ...]:
        """The measures that have a value for each block."""
        return tuple(column for column in self.columns if column.name in self.blocks[0].values)

    def best_depth(self, name: str) -> int | None:
        """The block, from 1, with the highest value, the last among equals; None if there is no value."""
        found = [(row.values.get(name), depth) for depth, row in enumerate(self.blocks, 1)]
        return max(((value, depth) for value, depth in found if value is not None), default=(0.0, None))[1]

    def as_dict(self) -> dict[str, Any]:
        """Plain, rounded values, as stored and printed in JSON."""
        return {
            "backbone": self.backbone,
            "weights": self.weights,
            "resolution": self.resolution,
            "n_images": self.n_images,
            "n_classes": self.n_classes,
            "measures": [column.name for column in self.columns],
            "blocks": [self._row(row) for row in self.blocks],
            "network": self._row(self.network),
            "warnings": list(self.warnings),
            **({"source": asdict(self.source)} if self.source else {}),
        }

    def _row(self, row: FitRow) -> dict[str, Any]:
        values = [row.values.get(column.name) for column in self.columns]
        rounded = [None if value is None else float(f"{value:.{_DIGITS}g}") for value in values]
        return {"name": row.name, "n_features": row.n_features, "values": rounded}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Fit":
        """The fit that `as_dict` wrote."""
        names = stored["measures"]
        by_block = zip(*(each["values"] for each in stored["blocks"]), strict=True)
        single = {name for name, values in zip(names, by_block, strict=True) if _none(values)}

        def row(given: Mapping[str, Any], absent: set[str]) -> FitRow:
            values = dict(zip(names, given["values"], strict=True))
            kept = {name: value for name, value in values.items() if name not in absent}
            return FitRow(name=given["name"], n_features=given["n_features"], values=kept)

        return cls(
            **{key: stored[key] for key in ("backbone", "weights", "resolution", "n_images", "n_classes")},
            blocks=tuple(row(each, single) for each in stored["blocks"]),
            network=row(stored["network"], set()),
            warnings=tuple(stored["warnings"]),
            source=SourceSet(**stored["source"]) if "source" in stored else None,
        )


def _none(values: Sequence[float | None]) -> bool:
    return all(value is None for value in values)


@dataclass(frozen=True, kw_only=True)
class SimilarityRow:
    """Similarity of one block's features in two networks; see `insight.similarity`.

    All values are None if a network gives all images the same features, or some that are infinite or NaN.
    """

    name: str
    cka: float | None
    overlap: float | None
    forward: float | None  # information imbalance from the pretrained network to the other
    back: float | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Comparison of a pretrained network with another one with the same blocks, on the same images."""

    backbone: str
    weights: str
    other: str
    resolution: int  # pixels per side
    n_images: int
    rows: tuple[SimilarityRow, ...]  # pretrained network and the other
    untrained: tuple[SimilarityRow, ...]  # pretrained network and an untrained one, for reference
    warnings: tuple[str, ...]


def by_fit(fits: Sequence[Fit], name: str) -> list[Fit]:
    """The fits by the network's value of the measure `name`, highest first, those without a value last."""

    def key(fit: Fit) -> float:
        value = fit.network.values.get(name)
        return float("-inf") if value is None else value

    return sorted(fits, key=key, reverse=True)


def fit_sentence(fit: Fit) -> str:
    """A summary, as in "resnet18: linear probe 84.3 % on its last block, highest on block 15 (86.0 %)"."""
    column = fit.columns[0]
    unit = f" {column.unit}" if column.unit else ""
    opening = f"{fit.backbone}: {column.title} {column.cell(fit.network.values[column.name])}{unit}"
    depth = fit.best_depth(column.name)
    if depth is None:
        return f"{opening} on the whole network"
    if depth == len(fit.blocks):
        return f"{opening} on its last block, where it is highest"
    highest = column.cell(fit.blocks[depth - 1].values[column.name])
    return f"{opening} on its last block, highest on block {depth} ({highest}{unit})"
