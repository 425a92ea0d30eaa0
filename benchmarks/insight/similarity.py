"""Similarity to a source by earth mover's distance: two halves of each set, and each set to each other.

python -m benchmarks.insight.similarity DATA/{dtd10,fashion10,flowers5,rsscn7,signdigits,trash6}
"""

import argparse
import statistics
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tlopt.data.load import load_data
from tlopt.insight.fit import pretrained_features
from tlopt.insight.images import TrainingImages
from tlopt.insight.labelled_features import Floats, Labels, SourceMeans
from tlopt.insight.source_classes import emd_similarity, highest_similarity
from tlopt.model.weights import load_weights
from tlopt.spec.point import seed_for
from tlopt.spec.sections import DataSpec

N_PER_CLASS = (1, 2, 5, 10, 20)
N_DRAWS = 5
RESOLUTION = 96


def features_of(folder: Path) -> tuple[Floats, Labels]:
    """Features of the last block, (N, D), and labels of a set's training images."""
    spec = DataSpec(source=str(folder))
    images = TrainingImages.of(load_data(spec, seed=0), spec)
    weights = load_weights("efficientnet_lite0", "default")
    found = pretrained_features(weights, images, resolution=RESOLUTION, device=torch.device("cpu"))
    return found.features[-1], images.labels


def halves(labels: Labels, n: int, draw: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of at most n images of each class, twice, none in both."""
    random = np.random.default_rng(seed_for("similarity", n, draw))
    own = [random.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    first = [rows[: min(n, len(rows) // 2)] for rows in own]
    second = [rows[len(rows) // 2 :][:n] for rows in own]
    return np.concatenate(first), np.concatenate(second)


def of_halves(features: Floats, labels: Labels, n: int) -> float:
    """Mean similarity of two halves of a set with n images of each class."""
    found = []
    for draw in range(N_DRAWS):
        one, other = halves(labels, n, draw)
        source = SourceMeans.of(features[other], labels[other])
        found.append(emd_similarity(features[one], labels[one], source))
    return statistics.fmean(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path, help="folders of images")
    args = parser.parse_args()
    torch.set_num_threads(1)
    sets = {folder.name: features_of(folder) for folder in args.data}

    print(f"| images in a class | {' | '.join(map(str, N_PER_CLASS))} |")
    print("| --- |" + " --- |" * len(N_PER_CLASS))
    for name, (features, labels) in sets.items():
        cells = [f"{of_halves(features, labels, n):.2f}" for n in N_PER_CLASS]
        print(f"| two halves of {name} | {' | '.join(cells)} |")
    print(f"| exp(-√(2/n)) | {' | '.join(f'{highest_similarity(n, n):.2f}' for n in N_PER_CLASS)} |")

    print(f"\n| images, down; source, across | {' | '.join(sets)} |")
    print("| --- |" + " --- |" * len(sets))
    sources = {name: SourceMeans.of(*each) for name, each in sets.items()}
    for name, (features, labels) in sets.items():
        cells = [f"{emd_similarity(features, labels, source):.2f}" for source in sources.values()]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
