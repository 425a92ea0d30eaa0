"""Do measures of fit predict how many blocks to freeze?

    python -m benchmarks.insight.depth DATA --curves benchmarks/defaults/curves

For each recorded set of points (`benchmarks.defaults.record_curves`): Spearman's rank correlation of a
measure at the last frozen block with the accuracy on images that were not used for any selection, over points
with at least one frozen block. Next to it that of the freeze depth itself, which ignores the images.
Each has the interval that 95 % of 2,000 draws of points, with replacement, lie in. Prints a Markdown
table.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from tlopt.data.load import load_data
from tlopt.insight.fit import measure_fit
from tlopt.insight.images import TrainingImages
from tlopt.insight.measures import chosen
from tlopt.insight.record import Fit
from tlopt.model.weights import load_weights
from tlopt.spec.sections import DataSpec

BACKBONE, RESOLUTION = "efficientnet_lite0", 64  # of the recordings
N_DRAWS = 2000


def fit_to(folder: Path) -> Fit:
    """The fit by block of the recordings' network to the training images in `folder`."""
    spec = DataSpec(source=str(folder))
    images = TrainingImages.of(load_data(spec, seed=0), spec)
    measures = tuple(measure for measure in chosen(()) if measure.by_block)
    weights = load_weights(BACKBONE, "default")
    return measure_fit(weights, images, measures, resolution=RESOLUTION, device=torch.device("cpu"))


def correlation(x: Sequence[float], y: Sequence[float]) -> str:
    """Spearman's rank correlation with its bootstrap interval, as in "0.31 (-0.05 to 0.60)"."""
    pairs, rng = np.array([x, y]), np.random.default_rng(0)
    drawn = [pairs[:, rng.integers(0, len(x), len(x))] for _ in range(N_DRAWS)]
    found = [float(spearmanr(*each).statistic) for each in drawn if np.ptp(each, axis=1).all()]
    low, high = np.quantile(found, (0.025, 0.975))
    return f"{float(spearmanr(*pairs).statistic):.2f} ({low:.2f} to {high:.2f})"


def main(arguments: Sequence[str]) -> None:
    """Measure the correlations and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--curves", type=Path, default=Path("benchmarks/defaults/curves"))
    asked = parser.parse_args(arguments)
    columns: dict[str, list[str]] = {}
    names = []
    for file in sorted(asked.curves.glob("*.json")):
        recorded = json.loads(file.read_text(encoding="utf-8"))
        if not (asked.data / recorded["data"]).is_dir():
            continue
        fit = fit_to(asked.data / recorded["data"])
        points = [point for point in recorded["points"] if point["freeze_depth"] > 0]
        depths = [int(point["freeze_depth"]) for point in points]
        accuracy = [float(point["judge"]) for point in points]
        names.append(f"{recorded['data']} ({len(points)})")
        columns.setdefault("freeze depth itself", []).append(correlation(depths, accuracy))
        for column in fit.block_columns:
            values = [fit.blocks[depth - 1].values[column.name] or 0.0 for depth in depths]
            columns.setdefault(column.title, []).append(correlation(values, accuracy))
    print(f"| measure at the last frozen block | {' | '.join(names)} |")
    print("| --- |" + " --- |" * len(names))
    for title, cells in columns.items():
        print(f"| {title} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
