"""Export of a network as an ONNX file."""

import re
import tempfile
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from tlopt.errors import DataError, MissingExtra, SpecError
from tlopt.exports.read import Export, load_module
from tlopt.model.build import untrained_network
from tlopt.model.weights import Weights
from tlopt.system.atomic import replacing_file

ONNX = "model.onnx"


def write_onnx(export: Export, folder: Path) -> Path:
    """Write the network to model.onnx in `folder`; return its path.

    Input: "pixels", float32 (N, 3, R, R), preprocessed as preprocessing.json says, R being its resolution.
    Output: "logits", float32 (N, classes), in the order of classes.txt. N may vary.

    Raises:
        MissingExtra: the packages of the extra "onnx" are not installed.
        SpecError: torch has no ONNX form for this network.
        WeightsError: the export's tensors cannot be read.
        DataError: the file cannot be written.
    """
    _check_installed()
    net = load_module(export, torch.device("cpu"))
    try:
        with replacing_file(folder / ONNX) as part:
            _convert(net, export.resolution, part, export.backbone)
    except OSError as error:
        raise DataError(f"{folder / ONNX} cannot be written: {error.strerror or error}") from error
    return folder / ONNX


def check_convertible(weights: Weights, resolution: int) -> None:
    """Raise if the network cannot be converted, by converting it untrained; takes up to a minute.

    Args:
        resolution: pixels per side.

    Raises:
        MissingExtra: the packages of the extra "onnx" are not installed.
        SpecError: torch has no ONNX form for this network.
    """
    _check_installed()
    network = untrained_network(weights, resolution, seed=0).eval()
    with tempfile.TemporaryDirectory(prefix="tlopt-") as folder:
        _convert(network.net, resolution, Path(folder) / ONNX, weights.backbone)


def _check_installed() -> None:
    if find_spec("onnx") is None or find_spec("onnxscript") is None:
        raise MissingExtra('writing an ONNX file needs more packages: pip install "tlopt[onnx]"')


def _convert(net: nn.Module, resolution: int, file: Path, backbone: str) -> None:
    # torch would treat a batch size of 1 as a constant.
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
            f" {_operation(error)}; leave out --onnx or use another backbone"
        ) from error


def _operation(error: BaseException) -> str:
    """The operation that torch cannot convert, in words."""
    link: BaseException | None = error
    while link is not None:
        if found := re.search(r"torch\.ops\.(\w+\.\w+)", str(link)):
            return f"its operation {found[1]}"
        link = link.__cause__
    return "one of its operations"
