"""Test results hold for the export: `predict` gives the logits that were measured."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from finished import make_contents, make_point, make_row, planted
from safetensors.torch import save_file

from tlopt.confirmation import held_out as reader
from tlopt.data.load import test_split as held_out_images
from tlopt.exports.predict import predict
from tlopt.exports.read import read_export
from tlopt.exports.write import write_export
from tlopt.model.build import build
from tlopt.model.weights import load_weights
from tlopt.training.inference import exported_logits
from tlopt.training.metrics import compute_metrics, log_probabilities
from tlopt.training.numerics import Numerics
from tlopt.training.run import Run, prepare_run

CPU = torch.device("cpu")
BACKBONES = [
    ("resnet18", 32),
    ("densenet121", 32),
    ("vgg11_bn", 32),
    ("mobilenet_v2", 32),
    ("mobilenet_v3_small", 32),
    ("efficientnet_b0", 32),
    ("convnext_tiny", 32),
    ("regnet_y_400mf", 32),
    ("vit_b_16", 32),
    ("swin_t", 32),
    ("inception_v3", 75),
    ("timm:convnext_atto", 32),
    ("timm:vit_tiny_patch16_224", 32),
    ("efficientnet_lite0", 32),
]
IN_SHORT = {"resnet18", "mobilenet_v3_small", "timm:vit_tiny_patch16_224"}


def run_of(workshop: tiny.Workshop, backbone: str, resolution: int) -> Run:
    """An untrained network, ready to be trained in bfloat16."""
    if backbone.startswith(("timm:", "efficientnet_lite0")):
        pytest.importorskip("timm")
    point = make_point(backbone, resolution=resolution)
    weights = replace(load_weights(backbone, "none"), resolution=resolution)
    network = build(point, n_classes=3, weights=weights, seed=3)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(5)
        network(torch.randn(8, 3, resolution, resolution))  # batch-norm statistics of their own
    return prepare_run(
        network,
        point,
        pretrained={},
        labels=workshop.workspace.data.labels,
        seed=1,
        device=CPU,
        n_classes=3,
        numerics=Numerics("bfloat16", "channels_last"),
    )


@pytest.mark.parametrize(
    ("backbone", "resolution"),
    [pytest.param(*row, marks=() if row[0] in IN_SHORT else pytest.mark.slow) for row in BACKBONES],
)
def test_predict_gives_the_logits_of_the_test_evaluation(
    backbone: str,
    resolution: int,
    workshop: tiny.Workshop,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = run_of(workshop, backbone, resolution)
    save_file(
        {name: t.detach().contiguous() for name, t in run.network.net.state_dict().items()},
        tmp_path / "run.safetensors",
    )
    contents = make_contents(planted(run.point), class_names=workshop.workspace.data.class_names)
    export = read_export(
        write_export(tmp_path / "x", contents, weights_file=tmp_path / "run.safetensors", overwrite=False)
    )
    workspace = replace(workshop.workspace, weights={backbone: load_weights(backbone, "none")})
    held_out = held_out_images(workspace.study.data, seed=workspace.study.seed)
    monkeypatch.setattr(reader, "trained", lambda *_: run)

    said = reader.read_test(workspace, [make_row("trial 12", (0.5,), point=run.point)], lambda *_: tmp_path)
    rows = list(predict(export, [image.origin.path for image in held_out.images], CPU))

    seen = exported_logits(
        run.network, workspace.test_images(held_out, run.point), run.point, np.arange(len(rows)), CPU
    )
    probabilities = np.array([row.probabilities for row in rows])
    np.testing.assert_allclose(probabilities, np.exp(log_probabilities(seen)), atol=1e-5)
    assert said[12][0]["accuracy"] == np.mean(probabilities.argmax(axis=1) == held_out.labels)
    # from the logits: a probability that random weights put below 1e-300 has lost its logarithm
    log_loss = compute_metrics(log_probabilities(seen), held_out.labels).log_loss
    assert said[12][0]["log_loss"] == pytest.approx(log_loss, rel=1e-4)
