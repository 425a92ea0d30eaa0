"""Images whose colour tells the class."""

import numpy as np

from tlopt.data.batches import Images


def coloured(labels: np.ndarray, side: int) -> Images:
    """An image of `side` x `side` pixels for each label of 0 to 2: noise, brighter in the label's channel.

    The same pixels in every session; stored at one size for training and evaluation.
    """
    pixels = np.random.default_rng(5).integers(60, 180, (len(labels), side, side, 3), dtype=np.uint8)
    pixels[np.arange(len(labels)), :, :, labels] += 60
    return Images(
        training_pixels=pixels,
        eval_pixels=pixels,
        labels=labels,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        flip=True,
    )
