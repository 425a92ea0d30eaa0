"""Predictions of one confirmed network on one split, per image, stored as a file beside its weights.

The file is an .npz without pickled objects. It records the network and images that it belongs to, and readers
check them, because folders outlive studies.
"""

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tlopt.confirmation.verdict import SplitName
from tlopt.errors import DataError
from tlopt.spec.point import Point
from tlopt.system.atomic import write_atomically

FORMAT = 1
THUMBNAILS_MAX = 12  # thumbnails of the most confident mistakes
THUMBNAIL_SIDE = 96  # pixels


_FINGERPRINTS = ("data", "weights")


@dataclass(frozen=True, kw_only=True)
class Source:
    """The network and the images that predictions belong to."""

    point: Mapping[str, Any]  # `Point.as_dict()`, or what a combined network is made of
    seed: int
    fingerprints: Mapping[
        str, str
    ]  # "data": fingerprint of the images, "weights": digest of the pretrained weights

    @classmethod
    def of(cls, point: Point, seed: int, fingerprints: Mapping[str, str]) -> Self:
        """The source of a run of `point` with `seed`."""
        return cls.made_of(point.as_dict(), seed, fingerprints)

    @classmethod
    def made_of(cls, what: Mapping[str, Any], seed: int, fingerprints: Mapping[str, str]) -> Self:
        """The source of a network made of several runs, of which `what` tells the points."""
        return cls(
            point=what,
            seed=seed,
            fingerprints={key: fingerprints.get(key, "") for key in _FINGERPRINTS},
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """Label and predicted class of every image of a split, in the split's order.

    Attributes:
        split: "val" or "test".
        class_names: in the order of the logits.
        files: name of each image: a path, or a sample's name.
        labels: (N,) true classes, as indices into `class_names`.
        predicted: (N,) predicted classes, as indices into `class_names`.
        probability: (N,) probability of the predicted class.
        true_probability: (N,) probability of the true class.
        thumbnails: (n, S, S, 3), 8-bit RGB, of the images at `thumbnail_of`; n may be 0.
        thumbnail_of: (n,) indices of the most confident mistakes, most confident first.
    """

    source: Source
    split: SplitName
    class_names: tuple[str, ...]
    files: tuple[str, ...]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    probability: NDArray[np.float64]
    true_probability: NDArray[np.float64]
    thumbnails: NDArray[np.uint8]
    thumbnail_of: NDArray[np.int64]

    def write(self, path: Path) -> None:
        """Write to `path` atomically.

        Raises:
            OSError: the file cannot be written.
        """
        header = {
            "format": FORMAT,
            "split": self.split,
            "point": dict(self.source.point),
            "seed": self.source.seed,
            "facts": dict(self.source.fingerprints),
            "class_names": self.class_names,
            "files": self.files,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        np.savez_compressed(
            content,
            # JSON escapes bytes of file names that are not valid text
            header=np.frombuffer(json.dumps(header).encode(), dtype=np.uint8),
            labels=self.labels.astype(np.int32),
            predicted=self.predicted.astype(np.int32),
            probability=self.probability.astype(np.float32),
            true_probability=self.true_probability.astype(np.float32),
            thumbnails=self.thumbnails,
            thumbnail_of=self.thumbnail_of.astype(np.int32),
        )
        write_atomically(path, content.getvalue())

    @classmethod
    def read(cls, path: Path) -> Self:
        """The predictions that `write` wrote to `path`.

        Raises:
            FileNotFoundError: the file does not exist.
            DataError: the file is damaged or was written by a newer tlopt.
        """
        try:
            # `np.load` would not close a file that it cannot read
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                header = file["header" if "header" in file else "said"]  # "said" in 0.2.0
                return cls._of(json.loads(header.tobytes()), {name: file[name] for name in _ARRAYS})
        except FileNotFoundError:
            raise
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"{path} cannot be read: {error}; delete it, then: tlopt confirm") from error

    @classmethod
    def _of(cls, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        if header["format"] != FORMAT:
            raise ValueError(f"format {header['format']!r}; this tlopt reads {FORMAT}")
        n, n_classes = len(header["files"]), len(header["class_names"])
        per_image = [arrays[name] for name in ("labels", "predicted", "probability", "true_probability")]
        indices = np.concatenate([arrays["labels"], arrays["predicted"]])
        within = ((indices >= 0) & (indices < n_classes)).all()
        if not within or any(each.shape != (n,) for each in per_image):
            raise ValueError("its arrays do not belong together")
        return cls(
            source=Source(point=header["point"], seed=header["seed"], fingerprints=header["facts"]),
            split=header["split"],
            class_names=tuple(header["class_names"]),
            files=tuple(header["files"]),
            labels=arrays["labels"].astype(np.int64),
            predicted=arrays["predicted"].astype(np.int64),
            probability=arrays["probability"].astype(np.float64),
            true_probability=arrays["true_probability"].astype(np.float64),
            thumbnails=arrays["thumbnails"],
            thumbnail_of=arrays["thumbnail_of"].astype(np.int64),
        )


_ARRAYS = ("labels", "predicted", "probability", "true_probability", "thumbnails", "thumbnail_of")


def predictions_file(weights_file: Path, split: SplitName) -> Path:
    """Path of the predictions on `split` of the network in `weights_file`."""
    return weights_file.with_name(f"{weights_file.stem}.{split}.npz")


def surest_mistakes(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], probability: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Indices of misclassified images, most confident first."""
    wrong = np.flatnonzero(labels != predicted)
    return wrong[np.argsort(-probability[wrong], kind="stable")]


def read_known(weights_file: Path, split: SplitName, source: Source) -> Predictions | None:
    """The predictions on `split` of the network in `weights_file`, or None if there are none for `source`.

    Raises:
        DataError: the file is damaged or was written by a newer tlopt.
    """
    try:
        found = Predictions.read(predictions_file(weights_file, split))
    except FileNotFoundError:
        return None
    return found if found.source == source else None
