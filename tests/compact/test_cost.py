"""Multiply-adds equal counts by hand, sizes those on disk, latencies planted ones; exports state them."""

import json
from pathlib import Path

import pytest
import torch
from finished import make_contents, make_point, planted, save_untrained
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from typer.testing import CliRunner

from tlopt.cli.main import app
from tlopt.compact import cost
from tlopt.compact.cost import TYPES, InferenceCost, count, file_bytes, measure_latency, multiply_adds
from tlopt.exports.write import write_export
from tlopt.model.build import blueprint, build, outlined
from tlopt.model.weights import load_weights
from tlopt.trial.workspace import save_tensors


class SelfAttention(nn.Module):
    """Attention of a sequence to itself, through torch's module."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        attended: Tensor = self.attention(x, x, x, need_weights=False)[0]
        return attended


IMAGE, SEQUENCE = (1, 8, 6, 6), (1, 10, 16)
BY_HAND = {
    "convolution": (nn.Conv2d(8, 12, 3, padding=1), IMAGE, 6 * 6 * 12 * 8 * 3 * 3),
    "stride": (nn.Conv2d(8, 12, 3, stride=2, padding=1), IMAGE, 3 * 3 * 12 * 8 * 3 * 3),
    "grouped": (nn.Conv2d(8, 12, 3, padding=1, groups=4), IMAGE, 6 * 6 * 12 * 2 * 3 * 3),
    "depthwise": (nn.Conv2d(8, 8, 3, padding=1, groups=8), IMAGE, 6 * 6 * 8 * 1 * 3 * 3),
    "linear": (nn.Linear(16, 5), SEQUENCE, 10 * 16 * 5),
    # queries, keys, values and the output's projection; scores and weighted values
    "attention": (SelfAttention(16, 4), SEQUENCE, 4 * 10 * 16 * 16 + 2 * 4 * 10 * 10 * 4),
    "no products": (nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2)), IMAGE, 0),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_multiply_adds_are_those_counted_by_hand(name: str) -> None:
    net, shape, expected = BY_HAND[name]

    assert multiply_adds(net, torch.empty(shape)) == expected
    with torch.inference_mode():  # in which torch fuses attention and would count 0
        assert multiply_adds(net.requires_grad_(False), torch.empty(shape)) == expected


@pytest.mark.parametrize(
    ("backbone", "resolution", "parameters", "giga"),
    [  # as torchvision publishes them for its weights
        ("resnet50", 224, 25_557_032, 4.089),
        ("mobilenet_v2", 224, 3_504_872, 0.301),
        ("regnet_y_400mf", 224, 4_344_144, 0.402),
        ("convnext_tiny", 224, 28_589_128, 4.456),
        ("vit_b_16", 224, 86_567_656, 17.564),
        ("swin_t", 224, 28_288_354, 4.491),
    ],
)
def test_backbones_cost_what_torchvision_says(
    backbone: str, resolution: int, parameters: int, giga: float
) -> None:
    found = count(outlined(backbone, resolution).net, resolution)

    assert found.parameters == parameters
    assert round(found.multiply_adds / 1e9, 3) == giga
    assert found.weights_bytes > 4 * parameters


def test_the_words_give_numbers_in_full() -> None:
    words = InferenceCost(parameters=1234, multiply_adds=5_000_000, weights_bytes=2_500_000).words

    assert words == "1,234 parameters, 5,000,000 multiply-adds per image and 2.5 MB of weights"


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v3_small", "swin_t"])
def test_bytes_are_those_of_a_file_that_is_written(backbone: str, tmp_path: Path) -> None:
    net = build(make_point(backbone), n_classes=3, weights=load_weights(backbone, "none"), seed=0).net
    state = {name: tensor.contiguous() for name, tensor in net.state_dict().items()}
    save_file(state, tmp_path / "file")

    assert count(net, 32).weights_bytes == (tmp_path / "file").stat().st_size


@pytest.mark.parametrize("dtype", sorted(TYPES, key=str))
def test_bytes_of_every_type_and_of_any_name_are_those_of_the_file(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    names = ("b", "a.\u00e9", 'quote"d', "a.weight")
    state = {name: torch.ones(n, 3, dtype=dtype) for n, name in enumerate(names, 1)}
    state |= {"c": torch.ones(5, dtype=torch.int64), "none": torch.empty(0, 4), "one": torch.tensor(1.0)}
    save_file(state, tmp_path / "file")

    assert file_bytes(state) == (tmp_path / "file").stat().st_size


class Slow(nn.Module):
    """A network whose forward pass takes as long as planted."""

    def __init__(self, clock: list[float], seconds: list[float]) -> None:
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def forward(self, x: Tensor) -> Tensor:
        self.clock[0] += self.seconds.pop(0)
        return x


def test_latency_is_the_median_and_its_ratio_is_taken_within_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(cost.time, "perf_counter", lambda: clock[0])
    # two rounds of warm-up; the machine is ten times slower in the third round and the last
    networks = {
        "reference": Slow(clock, [9, 9, 10, 1, 1, 1, 10]),
        "other": Slow(clock, [9, 9, 20, 2, 2, 2, 20]),
    }
    images = dict.fromkeys(networks, torch.zeros(1))

    found = measure_latency(networks, images, n_rounds=5)

    assert (found["reference"].seconds, found["reference"].ratio) == (1, 1)
    assert (found["other"].seconds, found["other"].ratio) == (2, 2)


def test_every_export_states_its_cost(tmp_path: Path) -> None:
    written = save_untrained(make_point(), tmp_path / "written.safetensors", n_classes=3)
    weights = tmp_path / "run.safetensors"
    save_tensors(load_file(written), weights, made_by="0123456789abcdef")
    folder = write_export(tmp_path / "best", make_contents(planted()), weights_file=weights, overwrite=False)

    network = json.loads((folder / "result.json").read_text())["network"]
    in_a_search = count(blueprint(make_point(), n_classes=3).net, 32)
    assert network["parameters"] == 11_689_512 - 513_000 + 3 * 513  # ResNet-18 with three classes
    assert network["multiply_adds"] == count(outlined("resnet18", 32).net, 32).multiply_adds - 512 * 997
    assert network["weights_bytes"] == (folder / "weights.safetensors").stat().st_size
    assert network["weights_bytes"] == in_a_search.as_dict()["bytes"]
    assert "It has 11,178,051 parameters, " in (folder / "README.md").read_text()

    shown = CliRunner().invoke(app, ["cost", str(folder), "resnet18", "--resolution", "32", "--json"])

    assert shown.exit_code == 0, shown.output
    ours, backbone = json.loads(shown.stdout)["networks"]
    assert {key: ours[key] for key in ("parameters", "multiply_adds", "weights_bytes")} == {
        key: network[key] for key in ("parameters", "multiply_adds", "weights_bytes")
    }
    assert (ours["n_classes"], backbone["n_classes"]) == (3, 1000)
    assert backbone["parameters"] == 11_689_512


def test_the_command_shows_a_table_and_measures_latency_on_request() -> None:
    names = ["mobilenet_v3_small", "timm:test_efficientnet"]
    options = ["--latency", "--rounds", "1", "--batch", "2", "--resolution", "32", "--device", "cpu"]

    shown = CliRunner().invoke(app, ["cost", *names, *options])

    assert shown.exit_code == 0, shown.output
    assert "2.54 M" in shown.stdout
    assert "batch of 1" in shown.stdout
    assert "batch of 2" in shown.stdout
    assert "ratio to mobilenet_v3_small" in " ".join(shown.stdout.split())


@pytest.mark.parametrize(
    ("name", "expected"), [("restnet18", "similar names: resnet18"), ("no/folder", "there is no such folder")]
)
def test_a_name_that_is_no_network_is_refused(name: str, expected: str) -> None:
    shown = CliRunner().invoke(app, ["cost", name])

    assert shown.exit_code == 1
    assert expected in str(shown.exception)
