"""An export's network as an ONNX file."""

import re
import tempfile
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from tlopt.errors import DataError, MissingExtra, SpecError
from tlopt.exports.read import Export, load_network
from tlopt.model.build import untrained
from tlopt.model.weights import Weights
from tlopt.system.atomic import replacing_file

ONNX = "model.onnx"


def write_onnx(export: Export, folder: Path) -> Path:
    """Write the network to model.onnx in `folder`; returns the file.

    Input "pixels", float32 (N, 3, R, R): what preprocessing.json describes, R its resolution. Output
    "logits", float32 (N, classes), in the order of classes.txt. N is free.

    Raises:
        MissingExtra: the packages of the extra "onnx" are not installed.
        SpecError: torch has no ONNX form for this network.
        WeightsError: the export's tensors cannot be read.
        DataError: the file cannot be written.
    """
    _check_installed()
    network = load_network(export, torch.device("cpu"))
    try:
        with replacing_file(folder / ONNX) as part:
            _convert(network.net, export.resolution, part, export.backbone)
    except OSError as error:
        raise DataError(f"{folder / ONNX} cannot be written: {error.strerror or error}") from error
    return folder / ONNX


def check_onnx(weights: Weights, resolution: int) -> None:
    """Convert an untrained network for images of `resolution` pixels per side; takes up to a minute.

    Raises:
        MissingExtra: the packages of the extra "onnx" are not installed.
        SpecError: torch has no ONNX form for this network.
    """
    _check_installed()
    network = untrained(weights, resolution, seed=0).eval()
    with tempfile.TemporaryDirectory(prefix="tlopt-") as folder:
        _convert(network.net, resolution, Path(folder) / ONNX, weights.backbone)


def _check_installed() -> None:
    if find_spec("onnx") is None or find_spec("onnxscript") is None:
        raise MissingExtra('an ONNX file needs two more packages: pip install "tlopt[onnx]"')


def _convert(net: nn.Module, resolution: int, file: Path, backbone: str) -> None:
    # A batch of one would be taken for a constant.
    example = torch.zeros(2, 3, resolution, resolution)
    try:
        torch.onnx.export(
            net,
            (example,),
            file,
            input_names=["pixels"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        raise SpecError(
            f"{backbone} cannot be written as an ONNX file: torch {torch.__version__} has no ONNX form for"
            f" {_operation(error)}; leave --onnx out, or take another backbone"
        ) from error


def _operation(error: BaseException) -> str:
    """The operation that torch's converter names, in words."""
    link: BaseException | None = error
    while link is not None:
        if found := re.search(r"torch\.ops\.(\w+\.\w+)", str(link)):
            return f"its {found[1]} as this network uses it"
        link = link.__cause__
    return "a part of it"
