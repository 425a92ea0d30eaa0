"""Widths of backbones: the library's own networks with a factor of their channels, or a clear refusal."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tlopt.errors import SpecError, WeightsError
from tlopt.model.build import outline
from tlopt.model.families.table import FAMILIES, skeleton, torchvision_names, width_options
from tlopt.model.families.torchvision import vgg_narrowed
from tlopt.model.weights import load_weights
from tlopt.spec.model_names import split_width

# a name of every family that has widths
WITH_WIDTHS = (
    *("densenet121", "mobilenet_v2", "vgg11_bn", "vit_b_16"),
    *(
        "timm:resnet18",
        "timm:resnet18d",
        "timm:seresnet18",
        "timm:convnext_atto",
        "timm:vit_tiny_patch16_224",
    ),
)


@pytest.fixture(params=WITH_WIDTHS)
def name(request: pytest.FixtureRequest) -> str:
    if request.param.startswith("timm:"):
        pytest.importorskip("timm")
    return str(request.param)


def n_parameters(backbone: str) -> int:
    return sum(row.n_parameters for row in outline(backbone))


def test_every_family_with_widths_is_in_the_table() -> None:
    pytest.importorskip("timm")
    kinds = [type(skeleton(name).net) for name in WITH_WIDTHS]

    assert {f"{kind.__module__}.{kind.__name__}" for kind in kinds} == {
        family.library_class for family in FAMILIES if family.at_width or family.narrowed
    }


def test_half_the_width_has_the_same_blocks_and_about_a_quarter_of_the_parameters(name: str) -> None:
    half, whole = outline(f"{name}@0.5"), outline(name)

    assert [row.name for row in half] == [row.name for row in whole]
    assert n_parameters(f"{name}@0.5") / n_parameters(name) == pytest.approx(0.25, abs=0.07)


def test_a_factor_of_one_gives_the_library_s_shapes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = {key: tensor.shape for key, tensor in skeleton(name).net.state_dict().items()}
    monkeypatch.setattr("tlopt.model.families.table.split_width", lambda _: (name, 1.0))
    if name == "vgg11_bn":
        narrowed = vgg_narrowed(skeleton(name).net, 1.0)
        assert {key: tensor.shape for key, tensor in narrowed.state_dict().items()} == usual
        return
    options = width_options(name, 1.0)
    monkeypatch.setattr("tlopt.model.families.table.split_width", lambda _: (name, 2.0))
    monkeypatch.setattr("tlopt.model.families.table.width_options", lambda *_: options)

    assert {key: tensor.shape for key, tensor in skeleton(name).net.state_dict().items()} == usual


@pytest.mark.parametrize(
    ("backbone", "said"),
    [
        ("resnet18@0.5", "resnet18 has one width only; others are possible for torchvision's DenseNet;"),
        ("densenet121@1", 'write "densenet121"'),
        ("densenet121@0.50", 'write "densenet121@0.5"'),
        ("densenet121@wide", 'a factor of the channels from 0.05 to 16, as in "timm:resnet18d@0.5"'),
        ("densenet121@0", "a factor of the channels from 0.05 to 16"),
        ("densenet121@17", "a factor of the channels from 0.05 to 16"),
        ("densenet121@-1", "a factor of the channels from 0.05 to 16"),
        ("densenet121@", 'write "densenet121" for the usual width'),
        ("resnet18@", 'write "resnet18" for the usual width'),
        ("@", "the name of a network is missing"),
        ("@0.5", "the name of a network is missing"),
        ("timm:", "the name of a network is missing"),
        ("timm:@0.5", "the name of a network is missing"),
        ("densnet121@0.5", "similar names: densenet121"),
    ],
)
def test_other_names_are_refused_with_the_cure(backbone: str, said: str) -> None:
    with pytest.raises(SpecError, match=r"^model\.backbone: ") as error:
        outline(backbone)

    assert said in str(error.value)


def test_a_name_has_its_width() -> None:
    assert split_width("timm:resnet18d@0.25") == ("timm:resnet18d", 0.25)
    assert split_width("resnet18") == ("resnet18", 1.0)
    assert all(split_width(known) == (known, 1.0) for known in torchvision_names())


def test_named_weights_are_refused_and_files_of_the_width_are_read(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="has no pretrained weights, since its width is not the usual one"):
        load_weights("densenet121@0.25", "default")

    usual = load_weights("densenet121@0.25", "none")
    net = skeleton("densenet121@0.25").net
    file = tmp_path / "narrow.safetensors"
    save_file({key: torch.ones(each.shape, dtype=each.dtype) for key, each in net.state_dict().items()}, file)
    read = load_weights("densenet121@0.25", str(file))

    assert read.state["features.conv0.weight"].shape == (16, 3, 7, 7)
    assert (read.mean, read.resolution) == (usual.mean, usual.resolution)
    with pytest.raises(WeightsError, match=r"does not fit densenet121@0\.5"):
        load_weights("densenet121@0.5", str(file))
