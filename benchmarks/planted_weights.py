"""Random numbers in the place of pretrained weights, for networks whose weights are not at hand.

Times do not depend on the values of weights. Accuracies do: random blocks that are frozen teach little.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import torch
import torchvision

BUNDLED = "efficientnet_lite0"  # comes as a package, its weights with it


def plant_weights(folder: Path, backbones: Iterable[str]) -> None:
    """Have this process, and those that it starts from here on, find such weights as torchvision's own.

    Args:
        folder: in which torch's cache is kept from here on.
        backbones: names that torchvision knows; `BUNDLED` is left as it is.

    Raises:
        ValueError: torchvision does not know one.
    """
    os.environ["TORCH_HOME"] = str(folder)
    place = folder / "hub" / "checkpoints"
    place.mkdir(parents=True, exist_ok=True)
    for name in backbones:
        if name != BUNDLED:
            torch.manual_seed(1)
            url = torchvision.models.get_model_weights(name).DEFAULT.url
            torch.save(torchvision.models.get_model(name).state_dict(), place / url.rpartition("/")[2])
