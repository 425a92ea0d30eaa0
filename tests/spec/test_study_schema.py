"""The JSON Schema of the study file accepts what the parser accepts, and marks mistakes of form."""

import tomllib
from pathlib import Path

import jsonschema
import pytest

from tlopt import spec
from tlopt.errors import SpecError
from tlopt.spec.schema import study_schema
from tlopt.spec.search_keys import RULES

ROOT = Path(__file__).parents[2]
VALID = jsonschema.Draft7Validator(study_schema())
HEAD = 'name = "a"\n[data]\nsource = "x"\n[model]\nbackbone = "resnet18"\n[budget]\ntrials = 9\nepochs = 3\n'


def accepts(text: str) -> bool:
    return bool(VALID.is_valid(tomllib.loads(text)))


@pytest.mark.parametrize("file", sorted(ROOT.glob("studies/*.toml")), ids=lambda file: file.name)
def test_the_shipped_studies_are_valid(file: Path) -> None:
    assert accepts(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "more",
    [
        "[search]\nlr = { log = [1e-4, 1.0] }",
        "[search]\nl2_sp = { log = [1e-4, 1.0], zero = true }",
        "[search]\ntransfer_depth = { int = [0, 8] }\nfreeze_depth = { uniform = [0.0, 1.0] }",
        '[search]\noptimizer = { choice = ["sgd", "adamw"] }\nlr = { sgd = 1, adamw = { log = [1e-5, 1] } }',
        "[search]\nbatch_size = { choice = [16, 32] }",
        "[search]\nbackbone_depth = { int = [1, 8] }\nneck_layers = 1\nneck_kernel = { choice = [1, 3] }",
        '[pruner]\nkind = "hyperband"\nreduction_factor = 4',
        '[sampler]\nkind = "random"',
        '[sampler]\nkind = "grid"\n[sampler.recipes]\n"a b" = { momentum = [0.5, 0], freeze_depth = 0.5 }',
        "[service]\nstall_seconds_max = 0",
        "[confirm]\nseeds = 5",
        "[constraints]\nmultiply_adds = 5e7\nlatency_ms = 12",
    ],
)
def test_what_the_reader_takes_is_valid(more: str) -> None:
    spec.loads(HEAD + more, "x.toml")

    assert accepts(HEAD + more)


@pytest.mark.parametrize(
    "more",
    [
        "[search]\nlearning_rate = 0.1",
        "[search]\nlr = { log = [0, 1.0] }",
        "[search]\nlr = { int = [1, 2] }",
        "[search]\nlr = { log = [1e-4] }",
        "[search]\nbatch_size = 1",
        "[search]\nbatch_size = { uniform = [2.0, 8.0] }",
        '[search]\noptimizer = "adam"',
        "[search]\nfreeze_depth = -1",
        "[search]\nneck_kernel = 2",
        "[search]\nneck_kernel = { int = [1, 3] }",
        "[search]\nlr_decay = { sgd = 1.0, adamw = 1.0 }",
        '[pruner]\nkind = "best"',
        '[pruner]\nkind = "hyperband"\nn_startup_trials = 4',
        "[confirm]\nseeds = 1",
        "[servce]\n",
    ],
)
def test_what_the_reader_refuses_for_its_form_is_marked(more: str) -> None:
    with pytest.raises(SpecError):
        spec.loads(HEAD + more, "x.toml")

    assert not accepts(HEAD + more)


def test_every_searched_key_is_described() -> None:
    keys = study_schema()["properties"]["search"]["properties"]

    assert set(keys) == set(RULES)
    assert all(key["description"] for key in keys.values())
