"""An export's network as an ONNX file."""

from importlib.util import find_spec
from pathlib import Path

import torch

from tlopt.errors import MissingExtra
from tlopt.exports.read import Export, load_network
from tlopt.system.atomic import replacing_file

ONNX = "model.onnx"


def write_onnx(export: Export, folder: Path) -> Path:
    """Write the network to model.onnx in `folder`; returns the file.

    Input "pixels", float32 (N, 3, R, R): what preprocessing.json describes, R its resolution. Output
    "logits", float32 (N, classes), in the order of classes.txt. N is free.

    Raises:
        MissingExtra: the packages of the extra "onnx" are not installed.
        WeightsError: the export's tensors cannot be read.
    """
    if find_spec("onnx") is None or find_spec("onnxscript") is None:
        raise MissingExtra('an ONNX file needs two more packages: pip install "tlopt[onnx]"')
    network = load_network(export, torch.device("cpu"))
    # A batch of one would be taken for a constant.
    example = torch.zeros(2, 3, export.resolution, export.resolution)
    with replacing_file(folder / ONNX) as part:
        torch.onnx.export(
            network.net,
            (example,),
            part,
            input_names=["pixels"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    return folder / ONNX
