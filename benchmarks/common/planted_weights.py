"""Random weights in place of pretrained ones, for networks whose weights are not available.

Times do not depend on the values of weights. Accuracies do: frozen random blocks are poor features.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import torch
import torchvision

BUNDLED = "efficientnet_lite0"  # its weights come as a package


def plant_weights(folder: Path, backbones: Iterable[str]) -> None:
    """Put random weights where torchvision looks for its own, for this process and its children.

    Args:
        folder: New cache folder of torch.
        backbones: Names of torchvision's models; `BUNDLED` keeps its weights.

    Raises:
        ValueError: torchvision has no model of one of these names.
    """
    os.environ["TORCH_HOME"] = str(folder)
    place = folder / "hub" / "checkpoints"
    place.mkdir(parents=True, exist_ok=True)
    for name in backbones:
        if name != BUNDLED:
            torch.manual_seed(1)
            url = torchvision.models.get_model_weights(name).DEFAULT.url
            torch.save(torchvision.models.get_model(name).state_dict(), place / url.rpartition("/")[2])
