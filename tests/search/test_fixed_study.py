"""A point survives a round trip through a study file exactly."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlopt import spec
from tlopt.errors import SpecError
from tlopt.model.facts import BackboneFacts
from tlopt.search.fixed_study import fixed_study, only_point
from tlopt.spec import search_keys
from tlopt.spec.point import Point

BLOCKS = 17
FACTS = BackboneFacts(
    n_blocks={"resnet50": BLOCKS, "timm:vit": BLOCKS},
    transferable=True,
    resolution={"resnet50": 224, "timm:vit": 224},
    batch_norm={"resnet50": True, "timm:vit": False},
    plain_lr={name: {"sgd": 0.01, "adamw": 0.001} for name in ("resnet50", "timm:vit")},
)
SEARCHED = """
name = "flowers"
seed = 7
objective = "macro_f1"
[data]
source = "data/flowers"
resize = "squash"
flip = false
[model]
backbone = { choice = ["resnet50", "timm:vit"] }
weights = "default"
[budget]
trials = 60
epochs = 30
hours = 2.5
[search]
transfer_depth = { uniform = [0.0, 1.0] }
lr = { log = [1e-4, 1.0] }
l2 = 0
[confirm]
seeds = 5
"""
STUDY = spec.loads(SEARCHED, "flowers.toml")
STRUCTURE = search_keys.STRUCTURE_KEYS  # most values have no effect: test_structure


def _values(rule: search_keys.Rule) -> st.SearchStrategy[object]:
    match rule:
        case search_keys.Depth():
            return st.integers(0, BLOCKS)
        case search_keys.Number(whole=True):
            return st.integers(int(rule.low), int(rule.high))
        case search_keys.Number():
            least = rule.least  # below it only 0 is allowed
            return st.floats(rule.low, rule.high).filter(lambda value: value == 0 or value >= least)
        case search_keys.Word():
            return st.sampled_from(rule.words)


@st.composite
def points(draw: st.DrawFn) -> Point:
    values = {name: draw(_values(rule)) for name, rule in search_keys.RULES.items() if name not in STRUCTURE}
    values["classifier"] = "network"  # of the others' keys most have no effect: test_linear_points
    transfer = values["transfer_depth"]
    names = ("freeze_depth", "anchor_depth", "norm_depth")
    depths = {name: min(values[name], transfer) for name in names}  # type: ignore[type-var]
    backbone = draw(st.sampled_from(STUDY.model.backbones))
    if depths["norm_depth"] <= depths["freeze_depth"] or not FACTS.batch_norm[backbone]:  # type: ignore[operator]
        values["norm_affine"], depths["norm_depth"] = "train", 0
    elif not depths["norm_depth"]:
        values["norm_affine"] = "train"
    return Point.from_dict({**values, **depths, "backbone": backbone})


@given(points())
def test_a_point_written_as_a_study_file_reads_back_equal(point: Point) -> None:
    written = spec.loads(fixed_study(STUDY, point, name="best"), "config.toml")
    assert only_point(written, FACTS) == point


@given(points())
def test_a_fixed_study_keeps_images_seed_objective_and_confirmation(point: Point) -> None:
    written = spec.loads(fixed_study(STUDY, point, name="best"), "config.toml")
    kept = ("seed", "objective", "data", "confirm")
    assert [getattr(written, key) for key in kept] == [getattr(STUDY, key) for key in kept]


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_source_survives_the_file(source: str) -> None:
    data = STUDY.data.model_copy(update={"source": source})
    study = STUDY.model_copy(update={"data": data})
    assert spec.loads(fixed_study(study, _point(), name="best"), "x").data.source == source


def test_searched_keys_are_named_where_one_point_is_wanted() -> None:
    with pytest.raises(SpecError, match=r"model\.backbone, search\.transfer_depth, search\.lr are searched"):
        only_point(STUDY, FACTS)


def _point() -> Point:
    values = {name: rule.default for name, rule in search_keys.RULES.items()}
    depths = {"backbone_depth": 0, "transfer_depth": 3, "freeze_depth": 1, "anchor_depth": 2}
    return Point.from_dict(
        {**values, **depths, "lr": 0.1, "l2": 0.0, "epochs": 3, "resolution": 64, "backbone": "resnet50"}
    )


def test_an_export_s_config_names_what_is_here_by_whole_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "images").mkdir()
    for name in ("labels.csv", "a.pth"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    data = STUDY.data.model_copy(update={"source": "labels.csv", "images_root": "images"})
    model = STUDY.model.model_copy(update={"weights": "a.pth#ema"})
    study = STUDY.model_copy(update={"data": data, "model": model})
    values = {name: rule.default for name, rule in search_keys.RULES.items()}
    depths = {"backbone_depth": 0, "transfer_depth": 1, "freeze_depth": 0, "anchor_depth": 0}
    rest = {"lr": 0.1, "l2": 0.0, "epochs": 2, "resolution": 32, "backbone": "resnet50"}
    point = Point.from_dict({**values, **depths, **rest})

    here = spec.loads(fixed_study(study, point, name="best", exported=True), "config.toml")
    as_given = spec.loads(fixed_study(study, point, name="best"), "config.toml")

    assert (here.data.source, here.data.images_root) == (f"{tmp_path}/labels.csv", f"{tmp_path}/images")
    assert here.model.weights == f"{tmp_path}/a.pth#ema"
    assert (as_given.data.source, as_given.data.images_root) == ("labels.csv", "images")
