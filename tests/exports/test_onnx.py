"""The ONNX file computes what the network computes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tlopt.errors import MissingExtra
from tlopt.exports import onnx
from tlopt.exports.onnx import write_onnx
from tlopt.exports.read import Export, load_network


@pytest.fixture(scope="module")
def file(export: Export, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxscript")
    return write_onnx(export, tmp_path_factory.mktemp("onnx"))


def test_one_file_is_written(file: Path) -> None:
    assert [path.name for path in file.parent.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("n_images", [1, 3])
def test_onnx_gives_the_networks_logits_for_any_batch(n_images: int, file: Path, export: Export) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pixels = np.random.default_rng(2).standard_normal((n_images, 3, 32, 32), dtype=np.float32)
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"pixels": pixels})
    with torch.inference_mode():
        expected = load_network(export, torch.device("cpu"))(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


def test_without_the_extra_the_error_names_it(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"tlopt\[onnx\]"):
        write_onnx(export, tmp_path)
