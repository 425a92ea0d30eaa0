"""A study whose networks all break a limit is refused with the cheapest one, and no other study is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny
from typer.testing import CliRunner

from tlopt.app.limits import cheapest_points, check_limits
from tlopt.cli.main import app
from tlopt.errors import SpecError
from tlopt.spec import Study
from tlopt.spec.point import Point

SEARCH = """
resolution = { choice = [64, 32, 48] }
backbone_depth = { int = [3, 17] }
neck_layers = { int = [0, 2] }
neck_width = { choice = [16, 64] }
lr = { log = [1e-4, 1.0] }
"""


def limited(limits: str, search: str = SEARCH) -> Study:
    return tiny.study(search, more=f"[constraints]\n{limits}")


def cost_of(point: Point) -> Mapping[str, float]:
    """Planted: more blocks have more parameters, and a neck on fewer blocks has more work."""
    blocks = point.backbone_depth or 17
    neck = point.neck_layers * point.neck_width
    work = point.resolution * (blocks + neck * (9 - blocks) ** 2)
    return {"parameters": 100.0 * blocks + neck, "multiply_adds": work, "bytes": 400.0 * blocks}


def refusal(study: Study) -> str:
    with pytest.raises(SpecError) as error:
        check_limits(study, tiny.facts(), cost_of)
    return str(error.value)


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ("parameters = 299", "constraints.parameters = 299: no network of this study keeps it"),
        ("multiply_adds = 95", "large with 3 blocks at 32 pixels, has 96. Set it to at least 96"),
        ("bytes = 1000", "the cheapest in file size"),
    ],
)
def test_a_limit_below_the_cheapest_network_is_refused_with_what_it_needs(limits: str, says: str) -> None:
    said = refusal(limited(limits))

    assert says in said
    assert "search.resolution" in said


@pytest.mark.parametrize(
    "limits", ["parameters = 300", "multiply_adds = 96", "bytes = 1200", "latency_ms = 1e-6"]
)
def test_a_limit_that_the_cheapest_network_keeps_is_not_refused(limits: str) -> None:
    check_limits(limited(limits), tiny.facts(), cost_of)


def test_without_limits_nothing_is_counted() -> None:
    def fail(_: Point) -> Any:
        raise AssertionError("a network was counted")

    check_limits(tiny.study(SEARCH), tiny.facts(), fail)


def test_limits_that_are_kept_apart_but_not_together_are_named_together() -> None:
    def opposite(point: Point) -> Mapping[str, float]:
        blocks = point.backbone_depth or 17
        return {"parameters": 100.0 * blocks, "multiply_adds": 1700.0 - 100 * blocks}

    with pytest.raises(SpecError, match="no network of this study keeps all of them; the nearest, large"):
        check_limits(limited("parameters = 500\nmultiply_adds = 500"), tiny.facts(), opposite)


def test_every_depth_is_tried_at_the_lowest_resolution_and_width() -> None:
    points = list(cheapest_points(tiny.study(SEARCH), tiny.facts()))

    assert {point.backbone_depth or 17 for point in points} == set(range(3, 18))
    assert {point.resolution for point in points} == {32}
    assert {(point.neck_layers, point.neck_width) for point in points if point.neck_layers} == {(1, 16)}


def test_check_and_run_refuse_such_a_study_before_a_trial(tmp_path: Path, study_text: Any) -> None:
    file = tmp_path / "small.toml"
    file.write_text(tiny.lighter(study_text(name="small", tables="[constraints]\nparameters = 1e3")))
    url = f"sqlite:///{tmp_path}/studies.db"
    for command in ("check", "run"):
        result = CliRunner().invoke(app, [command, str(file), "--storage", url])

        assert isinstance(result.exception, SpecError), result.output
        assert str(result.exception).startswith(f"{file}: constraints.parameters = 1000: no network")
    assert "small" not in CliRunner().invoke(app, ["status", "--storage", url]).output
