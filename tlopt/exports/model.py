"""An export as a torch module with its preprocessing and class names."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor, nn

from tlopt.data.decode import decode, sample_rgb
from tlopt.data.rgb import square
from tlopt.data.views import eval_views
from tlopt.exports.read import Export, load_module, read_export


class Classifier(nn.Module):
    """A trained network that maps views (n, 3, R, R) to logits (n, classes), in the order of `class_names`.

    `transform` preprocesses an image as the export prescribes; `classify` preprocesses and predicts. The
    module can be trained further, moved, compiled and saved like any other.
    """

    def __init__(self, export: Export, net: nn.Module) -> None:
        super().__init__()
        # module of torchvision or timm, what a shortened backbone has of it, or an `Ensemble` of several
        self.net = net
        self.class_names = export.class_names
        self._export = export

    def forward(self, views: Tensor) -> Tensor:
        """Logits (n, classes)."""
        logits: Tensor = self.net(views)
        return logits

    def transform(self, image: str | Path | Image.Image) -> Tensor:
        """The normalised view (3, R, R) of an image file or an open image, on the CPU.

        Raises:
            DataError: the image cannot be decoded.
        """
        views = eval_views(
            torch.from_numpy(self._pixels(image)[np.newaxis]),
            resolution=self._export.resolution,
            mean=self._export.mean,
            std=self._export.std,
        )
        return views[0]

    def _pixels(self, image: str | Path | Image.Image) -> NDArray[np.uint8]:
        size, reading = self._export.store_size, self._export.reading
        if not isinstance(image, Image.Image):
            return decode(Path(image), size=size, reading=reading)
        return square(sample_rgb(ImageOps.exif_transpose(image)), size=size, resize=reading.resize)

    @torch.inference_mode()
    def classify(self, images: Sequence[str | Path | Image.Image]) -> list[tuple[str, float]]:
        """The predicted class of each image and its probability in [0, 1].

        Raises:
            DataError: an image cannot be decoded.
        """
        if not images:
            return []
        device = next(self.parameters()).device
        views = torch.stack([self.transform(image) for image in images])
        best = self(views.to(device)).double().softmax(dim=1).max(dim=1)
        labels = [self.class_names[index] for index in best.indices.tolist()]
        return list(zip(labels, best.values.tolist(), strict=True))

    def __repr__(self) -> str:
        n = f"{len(self._export.members)} x " if self._export.members else ""
        return (
            f"<Classifier {n}{self._export.backbone}: {self._export.resolution} px,"
            f" {len(self.class_names)} classes, from {self._export.folder}>"
        )


def load_classifier(folder: Path, device: torch.device) -> Classifier:
    """The network of the export in `folder`, in eval mode on `device`.

    Raises:
        NotReady: `folder` is not an export.
        DataError, WeightsError: a file in it is damaged.
        MissingExtra: the network's library is not installed.
    """
    export = read_export(folder)
    return Classifier(export, load_module(export, device)).eval()
