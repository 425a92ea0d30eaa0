"""The cost of fit, and of computing every measure and block from the images anew.

    python -m benchmarks.insight.fit_cost DATA/dtd10

"Anew" decodes the image files, computes the features of one block and one measure on them, once for each
measure and block, with the same functions. Both run alternately in one process: one fit, then a share of
the pairs of measure and block, in random order. `--pairs` measures some pairs, drawn at random, and
multiplies their mean by the number of all. Processor time of the whole process, one thread.
"""

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from tlopt.data.dataset import File
from tlopt.data.decode import decode
from tlopt.data.load import load_data
from tlopt.data.pixels import eval_size
from tlopt.data.views import eval_views
from tlopt.insight.block_features import block_features, pool, source_head
from tlopt.insight.fit import fit_of
from tlopt.insight.images import TrainingImages
from tlopt.insight.labelled_features import LabelledFeatures
from tlopt.insight.measures import Measure, chosen
from tlopt.model.build import transfer, untrained_network
from tlopt.model.network import Network
from tlopt.model.weights import Weights, load_weights
from tlopt.spec.sections import DataSpec
from tlopt.training.frozen_prefix import CHUNK_IMAGES
from tlopt.training.numerics import usual_numerics

CPU = torch.device("cpu")


def decoded(images: TrainingImages, resolution: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """The training images from their files: uint8 (N, S, S, 3)."""
    origins = [images.data.images[i].origin for i in images.indices]
    paths = [origin.path for origin in origins if isinstance(origin, File)]
    return np.stack([decode(path, size=eval_size(resolution), reading=images.reading) for path in paths])


def pretrained(weights: Weights, resolution: int) -> Network:
    """The network of `weights` in eval mode."""
    network = untrained_network(weights, resolution, seed=0)
    transfer(network, weights, depth=len(network.blocks))
    numerics = usual_numerics(network, CPU)
    network.to(memory_format=numerics.memory_format).eval()
    return network


def together(network: Network, weights: Weights, images: TrainingImages, resolution: int) -> None:
    """Every measure of every block, from image files, as `tlopt fit` computes them."""
    pixels = decoded(images, resolution)
    found = block_features(
        network,
        pixels,
        np.arange(len(pixels)),
        resolution=resolution,
        mean=weights.mean,
        std=weights.std,
        device=CPU,
        source_head=source_head(weights),
    )
    fit_of(found, images, chosen(()), weights=weights, resolution=resolution)


@torch.no_grad()
def anew(
    network: Network, weights: Weights, images: TrainingImages, resolution: int, measure: Measure, depth: int
) -> None:
    """One measure of one block, from image files."""
    pixels = decoded(images, resolution)
    rows, logits = [], []
    head = None if measure.by_block else source_head(weights)
    layout = usual_numerics(network, CPU).memory_format
    for at in range(0, len(pixels), CHUNK_IMAGES):
        chunk = torch.from_numpy(pixels[at : at + CHUNK_IMAGES])
        views = eval_views(chunk, resolution=resolution, mean=weights.mean, std=weights.std)
        out = network.between(views.contiguous(memory_format=layout), 0, depth)
        rows.append(pool(out).double().numpy())
        if head is not None:
            logits.append(head(out).double().softmax(dim=1).numpy())
    probabilities = np.concatenate(logits) if logits else None
    features = np.concatenate(rows)
    measure.value(
        LabelledFeatures(
            features=features, labels=images.labels, folds=images.folds, source_probabilities=probabilities
        )
    )


def processor_seconds(work: Callable[[], None]) -> float:
    """Processor time of `work`."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main(arguments: Sequence[str]) -> None:
    """Measure the costs and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=1000)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    spec = DataSpec(source=asked.folder)
    weights = load_weights(asked.backbone, "default")
    images = TrainingImages.of(load_data(spec, seed=0), spec, images_max=asked.images)
    network = pretrained(weights, asked.resolution)
    n_blocks = len(network.blocks)
    pairs = [(m, d) for m in chosen(()) for d in (range(1, n_blocks + 1) if m.by_block else (n_blocks,))]
    n_pairs = len(pairs)
    random.Random(0).shuffle(pairs)
    pairs = pairs[: asked.pairs]
    print(f"{len(images.indices)} images at {asked.resolution} px, {asked.backbone}, {n_blocks} blocks")
    once, apart = [], []
    for turn in range(asked.rounds):
        once.append(processor_seconds(lambda: together(network, weights, images, asked.resolution)))
        for measure, depth in pairs[turn :: asked.rounds]:
            apart.append(
                processor_seconds(
                    lambda m=measure, d=depth: anew(network, weights, images, asked.resolution, m, d)  # type: ignore[misc]
                )
            )
        print(f"round {turn + 1}: fit {once[-1]:.1f} s; {len(apart)} of {len(pairs)} pairs", flush=True)
    usual = statistics.median(once)
    print(f"fit: {usual:.1f} processor-seconds (median; {min(once):.1f} to {max(once):.1f})")
    anew_seconds = statistics.mean(apart) * n_pairs
    print(f"a pair: {statistics.mean(apart):.2f} ± {statistics.stdev(apart):.2f} processor-seconds")
    print(f"anew: {anew_seconds:.0f} processor-seconds for {n_pairs} pairs, from {len(apart)} of them")
    print(f"ratio: {anew_seconds / usual:.0f}")


if __name__ == "__main__":
    main(sys.argv[1:])
