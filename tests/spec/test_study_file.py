"""Study files: what is accepted, the message for every mistake, and what the digest covers."""

from pathlib import Path

import pytest

from tlopt import spec
from tlopt.errors import SpecError
from tlopt.spec import PerOptimizer, Study
from tlopt.spec.algorithms import HyperbandPruner, MedianPruner, TpeSampler
from tlopt.spec.dimensions import Choice, Fixed, Int, Log, Uniform

TABLES = {
    "": 'name = "flowers"\nseed = 7',
    "data": 'source = "data/flowers"',
    "model": 'backbone = "resnet50"',
    "budget": "trials = 60\nepochs = 30",
}


def text(changes: dict[str, str] | None = None, *, without: str | None = None) -> str:
    """A study file with tables replaced by those of `changes`, and one left out."""
    tables = {name: lines for name, lines in (TABLES | (changes or {})).items() if name != without}
    top = tables.pop("", "")
    return "\n".join([top, *(f"[{name}]\n{lines}" for name, lines in tables.items())])


def loads(changes: dict[str, str] | None = None, *, without: str | None = None) -> Study:
    return spec.loads(text(changes, without=without), "x.toml")


def refusal(changes: dict[str, str] | None = None, *, without: str | None = None) -> list[str]:
    """The lines of what a wrong file is told."""
    with pytest.raises(SpecError) as caught:
        loads(changes, without=without)
    return str(caught.value).split("\n")


DESIGN = """
name   = "flowers-resnet50"
seed   = 7
[data]
source = "data/flowers"
val_fraction = 0.2
test_fraction = 0.2
[model]
backbone = "resnet50"
weights  = "IMAGENET1K_V2"
[budget]
trials = 60
epochs = 30
[search]
transfer_depth = { int = [0, 17] }
freeze_depth   = { int = [0, 17] }
lr             = { log = [1e-4, 1.0] }
lr_ratio       = { log = [1e-2, 1.0] }
l2_sp          = { log = [1e-4, 1.0], zero = true }
l2             = { log = [1e-6, 1e-2] }
[pruner]
kind = "hyperband"
min_epochs = 4
"""


def test_a_whole_study_file_is_read_key_by_key() -> None:
    study = spec.loads(DESIGN, "x.toml")

    assert (study.name, study.seed, study.objective, study.direction) == (
        "flowers-resnet50",
        7,
        "accuracy",
        "maximize",
    )
    assert (study.data.source, study.data.val_fraction) == ("data/flowers", 0.2)
    assert (study.model.backbone, study.model.backbones) == (Fixed("resnet50"), ("resnet50",))
    assert (study.budget.trials, study.budget.epochs, study.budget.hours) == (60, 30, 0)
    assert study.search == {
        "transfer_depth": Int(0, 17),
        "freeze_depth": Int(0, 17),
        "lr": Log(1e-4, 1.0),
        "lr_ratio": Log(1e-2, 1.0),
        "l2_sp": Log(1e-4, 1.0, True),
        "l2": Log(1e-6, 1e-2),
    }
    assert study.pruner == HyperbandPruner(kind="hyperband", min_epochs=4)


def test_what_is_left_out_has_defaults() -> None:
    study = loads()

    assert (study.sampler, study.pruner, study.search) == (TpeSampler(), MedianPruner(), {})
    assert (study.confirm.points, study.confirm.seeds) == (3, 3)
    assert study.model.weights == "default"


def test_log_loss_is_minimised() -> None:
    assert loads({"": 'name = "a"\nobjective = "log_loss"'}).direction == "minimize"


def test_a_searched_optimizer_has_ranges_of_its_own() -> None:
    search = (
        'optimizer = { choice = ["sgd", "adamw"] }\n'
        "lr = { sgd = { log = [1e-3, 1] }, adamw = { log = [1e-5, 1e-2] } }\n"
        "l2 = { sgd = 0, adamw = { uniform = [0, 1] } }"
    )

    study = loads({"search": search})

    assert study.search["lr"] == PerOptimizer(sgd=Log(1e-3, 1.0), adamw=Log(1e-5, 1e-2))
    assert study.search["l2"] == PerOptimizer(sgd=Fixed(0.0), adamw=Uniform(0.0, 1.0))


def test_a_searched_backbone_takes_depths_as_fractions_and_none() -> None:
    study = loads(
        {
            "model": 'backbone = { choice = ["resnet18", "resnet50"] }',
            "search": "transfer_depth = { uniform = [0.0, 1.0] }\nfreeze_depth = 0",
        }
    )

    assert study.model.backbone == Choice(("resnet18", "resnet50"))
    assert study.model.backbones == ("resnet18", "resnet50")


ROOT = [
    "name",
    "seed",
    "objective",
    "objectives",
    "warm_start",
    "data",
    "model",
    "budget",
    "search",
    "sampler",
    "pruner",
    "constraints",
    "confirm",
]

HERE = f"the keys here are {', '.join(ROOT)}"

# (tables that replace the good ones, the only line after the file's name)
MISTAKES: list[tuple[dict[str, str], str]] = [
    (
        {"": 'name = "a"\nsede = 7'},
        f"sede: unknown key; did you mean seed? the keys here are {', '.join(ROOT)}",
    ),
    (
        {"bugdet": "trials = 3"},
        f"bugdet: unknown key; did you mean budget? {HERE}",
    ),
    ({"": "seed = 7"}, "name: missing: up to 100 letters, digits and . _ - (first a letter or digit)"),
    (
        {"": 'name = "-a"'},
        "name: '-a' is not allowed: up to 100 letters, digits and . _ - (first a letter or digit)",
    ),
    ({"": 'name = "a b"'}, "name: 'a b' is not allowed: up to 100 letters"),
    ({"": 'name = "a/b"'}, "name: 'a/b' is not allowed: up to 100 letters"),
    ({"": f'name = "{"a" * 101}"'}, f"name: '{'a' * 101}' is not allowed: up to 100 letters"),
    ({"": 'name = ""'}, "name: '' is not allowed: up to 100 letters"),
    ({"": "name = 3"}, "name: 3 is not allowed: a string"),
    ({"": 'name = "a.confirm"'}, "name: names that end in .confirm belong to confirmations"),
    ({"": 'name = "a"\nseed = -1'}, "seed: -1 is not allowed: at least 0"),
    ({"": 'name = "a"\nseed = 1.5'}, "seed: 1.5 is not allowed: a whole number"),
    ({"": 'name = "a"\nseed = true'}, "seed: true is not allowed: a whole number"),
    (
        {"": 'name = "a"\nobjective = "acc"'},
        'objective: \'acc\' is not allowed: one of "accuracy", "balanced_accuracy", "macro_f1", "log_loss"',
    ),
    ({"": 'name = "a"\npruner = "median"'}, "pruner: 'median' is not allowed: a table"),
    ({"": 'name = "a"\nsearch = 3'}, "search: a table, [search], and not 3"),
    ({"": 'name = "a"\nconfirm = 3'}, "confirm: 3 is not allowed: a table"),
    (
        {"data": 'source = "x"\nfraction = 1'},
        "data.fraction: unknown key; did you mean val_fraction or test_fraction? the keys here are source",
    ),
    ({"data": "val_fraction = 0.2"}, "data.source: missing: a folder of images, a table"),
    ({"data": "source = 3"}, "data.source: 3 is not allowed: a string"),
    ({"data": 'source = ""'}, "data.source: '' is not allowed: a folder of images, a table"),
    ({"data": 'source = "x"\nval_fraction = 0'}, "data.val_fraction: 0 is not allowed: at least 1e-06"),
    ({"data": 'source = "x"\nval_fraction = 0.9'}, "data.val_fraction: 0.9 is not allowed: below 0.9"),
    ({"data": 'source = "x"\nval_fraction = nan'}, "data.val_fraction: nan is not allowed: a finite number"),
    ({"data": 'source = "x"\nval_fraction = "0.2"'}, "data.val_fraction: '0.2' is not allowed: a number"),
    (
        {"data": 'source = "x"\nval_fraction = 0.5\ntest_fraction = 0.45'},
        "data: val_fraction and test_fraction leave less than 5 % of the images to train on",
    ),
    ({"data": 'source = "x"\nrepeats = 21'}, "data.repeats: 21 is not allowed: at most 20"),
    ({"data": 'source = "x"\nflip = 1'}, "data.flip: 1 is not allowed: true or false"),
    (
        {"data": 'source = "x"\nresize = "fit"'},
        'data.resize: \'fit\' is not allowed: one of "crop", "stretch"',
    ),
    ({"model": 'weights = "none"'}, 'model.backbone: missing: a name from torchvision, "efficientnet_lite0"'),
    ({"model": "backbone = 50"}, 'model.backbone: a backbone is a name such as "resnet50", or { choice'),
    ({"model": 'backbone = ""'}, "model.backbone: a backbone is a name"),
    ({"model": 'backbone = { choice = ["a"] }'}, "model.backbone: choice is a list of at least two values"),
    ({"model": "backbone = { int = [1, 2] }"}, "model.backbone: a backbone is a name"),
    ({"model": 'backbone = "a"\nweights = ""'}, "model.weights: '' is not allowed: \"default\", a name of"),
    (
        {"budget": "trials = 2.5\nepochs = 3"},
        'budget.trials: 2.5 is not allowed: a whole number, or "enough"',
    ),
    ({"budget": "trials = 0\nepochs = 3"}, "budget.trials: 0 is not allowed: at least 1"),
    ({"budget": 'trials = 3\nepochs = "3"'}, "budget.epochs: '3' is not allowed: a whole number"),
    ({"budget": "trials = 3"}, "budget.epochs: missing: largest number of epochs per trial"),
    ({"budget": "trials = 3\nepochs = 3\nhours = -1"}, "budget.hours: -1 is not allowed: at least 0"),
    ({"budget": "trials = 3\nepochs = 3\nhours = nan"}, "budget.hours: nan is not allowed: a finite number"),
    ({"confirm": "seeds = 1"}, "confirm.seeds: 1 is not allowed: at least 3"),
    ({"confirm": "points = 51"}, "confirm.points: 51 is not allowed: at most 50"),
    (
        {"budget": f"trials = {10**38}\nepochs = 3"},
        f"budget.trials: {10**38} is not allowed: at most 1000000",
    ),
    ({"budget": f"trials = 3\nepochs = {10**23}"}, f"budget.epochs: {10**23} is not allowed: at most 100000"),
    ({"service": "stall_seconds_max = 1e-300"}, "service.stall_seconds_max: 1e-300 is not allowed: 0 for"),
    ({"service": "checkpoint_gb_max = 1e-320"}, "service.checkpoint_gb_max: 1e-320 is not allowed: at least"),
    (
        {"search": "l2_sp = { log = [1e-320, 1e-300], zero = true }"},
        "search.l2_sp: a log range starts at 1e-30 or above, not at",
    ),
    (
        {"confirm": "seed = 3"},
        "confirm.seed: unknown key; did you mean seeds? the keys here are points",
    ),
    (
        {"sampler": 'kind = "tpo"'},
        'sampler.kind: \'tpo\' is not allowed: one of "tpe", "random", "gp"',
    ),
    ({"sampler": "kind = 3"}, 'sampler.kind: 3 is not allowed: one of "tpe"'),
    ({"sampler": 'kind = "random"\nseed = 3'}, "sampler.seed: unknown key; the keys here are kind"),
    (
        {"sampler": 'kind = "tpe"\nn_ei_candidates = 0'},
        "sampler.n_ei_candidates: 0 is not allowed: at least 1",
    ),
    (
        {"pruner": 'kind = "foo"'},
        "pruner.kind: 'foo' is not allowed: one of"
        ' "none", "median", "percentile", "successive_halving", "hyperband", "promotion"',
    ),
    ({"pruner": "min_epochs = 3"}, 'pruner.kind: missing: one of "none", "median"'),
    (
        {"pruner": 'kind = "median"\npercentile = 3'},
        "pruner.percentile: unknown key; the keys here are kind, n_startup_trials, min_epochs",
    ),
    ({"pruner": 'kind = "median"\nmin_epochs = 0'}, "pruner.min_epochs: 0 is not allowed: at least 1"),
    ({"pruner": 'kind = "percentile"\npercentile = 100'}, "pruner.percentile: 100 is not allowed: below 100"),
    ({"search": "depht = 3"}, "search.depht: unknown key; the keys here are transfer_depth, freeze_depth, "),
    ({"search": 'lr = "fast"'}, "search.lr: 'fast' is not allowed: a number from 1e-08 to 100"),
    ({"search": "lr = [1e-3, 1]"}, "search.lr: [0.001, 1] is neither a plain value (fixed) nor a table"),
    ({"search": "lr = 1979-05-27"}, "search.lr: 1979-05-27 is neither a plain value"),
    (
        {"search": "lr = { lin = [0, 1] }"},
        "search.lr: a searched key is a table with one of int, uniform, log",
    ),
    (
        {"search": "lr = { log = [1.0, 0.1] }"},
        "search.lr: the range log = [1.0, 0.1] is empty: low must be below high; write [0.1, 1.0]",
    ),
    (
        {"search": "l2_sp = { log = [0, 1] }"},
        "search.l2_sp: a log range must start above 0, not at 0; write zero = true beside it to search 0 too",
    ),
    ({"search": "lr = { log = [1e-4, 200] }"}, "search.lr: 200.0 is not allowed: a number from 1e-08 to 100"),
    ({"search": "lr = { int = [1, 5] }"}, "search.lr: a real number is searched with uniform, log or choice"),
    ({"search": "batch_size = 8.0"}, "search.batch_size: 8.0 is not allowed: a whole number from 2"),
    ({"search": "batch_size = 1"}, "search.batch_size: 1 is not allowed: a whole number from 2"),
    ({"search": "epochs = { int = [5, 31] }"}, "search.epochs exceeds budget.epochs = 30"),
    ({"search": 'optimizer = "adam"'}, 'search.optimizer: \'adam\' is not allowed: one of "sgd", "adamw"'),
    (
        {"search": "freeze_depth = -1"},
        "search.freeze_depth: -1 is not allowed: a whole number of blocks from 0",
    ),
    ({"search": "freeze_depth = nan"}, "search.freeze_depth: nan is not allowed: a whole number of blocks"),
    ({"search": "freeze_depth = { choice = [1, 0.5] }"}, "search.freeze_depth: mixes whole numbers (blocks)"),
    (
        {"search": "lr = { sgd = 0.1, adamw = 0.01 }"},
        'search.lr: ranges for each optimizer need optimizer = { choice = ["sgd", "adamw"] }',
    ),
    (
        {"search": 'optimizer = { choice = ["sgd", "adamw"] }\nlr = { log = [1e-4, 1] }'},
        "search.lr: with a searched optimizer it needs a range for each: lr = { sgd = { ... }",
    ),
    (
        {"search": 'optimizer = { choice = ["sgd", "adamw"] }\nlr = { sgd = 0.1 }'},
        "search.lr: needs a value for each of sgd, adamw and nothing else, has sgd",
    ),
    (
        {"search": 'optimizer.choice = ["sgd", "adamw"]\nlr = { sgd = 0.1, adamw = { choice = [1, 2] }}'},
        "search.lr: a range for each optimizer is a value, uniform or log",
    ),
    (
        {"search": "momentum = { sgd = 0.9, adamw = 0.8 }"},
        "search.momentum: a searched key is a table with one",
    ),
    (
        {
            "model": 'backbone = { choice = ["resnet18", "resnet50"] }',
            "search": "transfer_depth = { int = [0, 9] }",
        },
        "search.transfer_depth: with a searched backbone a depth is a fraction of its blocks, 0.0 to 1.0",
    ),
]


@pytest.mark.parametrize(("changes", "line"), MISTAKES, ids=[line[:50] for _, line in MISTAKES])
def test_a_mistake_is_one_line_with_file_key_and_what_is_allowed(changes: dict[str, str], line: str) -> None:
    (found,) = refusal(changes)

    assert found.startswith(f"x.toml: {line}")


@pytest.mark.parametrize("table", ["data", "model", "budget"])
def test_a_missing_table_is_named(table: str) -> None:
    assert refusal(without=table) == [f"x.toml: {table}: missing: a table, [{table}]"]


def test_all_mistakes_are_told_at_once() -> None:
    found = refusal(
        {
            "": "name = 3",
            "budget": "trials = 0\nepochs = 0",
            "search": 'lr = "fast"\ndepht = 3',
            "confirm": "a = 1",
        }
    )

    assert [line.split(": ")[1] for line in found] == [
        "name",
        "budget.trials",
        "budget.epochs",
        "search.lr",
        "search.depht",
        "confirm.a",
    ]


def test_a_file_that_is_not_toml_is_told_where() -> None:
    with pytest.raises(SpecError, match=r"^x.toml: not valid TOML: .*line 1"):
        spec.loads("name = flowers", "x.toml")


def test_a_key_given_twice_is_not_toml() -> None:
    with pytest.raises(SpecError, match="not valid TOML"):
        spec.loads('name = "a"\nname = "b"', "x.toml")


def test_a_study_is_loaded_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(DESIGN, encoding="utf-8")

    assert spec.load(tmp_path / "x.toml") == spec.loads(DESIGN, "x.toml")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"

    with pytest.raises(SpecError, match=r"x\.toml: cannot be read as a study file"):
        spec.load(path)


SEARCH = "lr = { log = [1e-4, 1.0] }\ntransfer_depth = { int = [0, 17] }"

SAME = [
    {"": '# a comment\nseed = 7\nname = "flowers"'},
    {"": 'name = "other"\nseed = 7'},
    {"": 'name = "flowers"\nseed = 7\nobjective = "accuracy"'},
    {"data": 'source = "elsewhere"'},
    {"data": 'val_fraction = 0.2\nsource = "data/flowers"\ntest_fraction = 0.2'},
    {"budget": "trials = 90\nepochs = 30\nhours = 12"},
    {"budget": "trials = 60\nepochs = 30\nhours = 12.0"},
    {"model": 'backbone = "resnet50"\nweights = "default"'},
    {"confirm": "points = 5\nseeds = 9"},
    {"sampler": 'kind = "tpe"'},
    {"pruner": 'kind = "median"\nmin_epochs = 4'},
    {"search": "transfer_depth = { int = [0, 17] }\nlr = { log = [1e-4, 1.0] }"},
    {"search": "lr = { log = [0.0001, 1] } # a comment\ntransfer_depth.int = [0, 17]"},
    {"search": "lr = { log = [1e-4, 1.0], zero = false }\ntransfer_depth = { int = [0, 17] }"},
]


@pytest.mark.parametrize("changes", SAME, ids=str)
def test_the_digest_does_not_see_what_changes_no_trial(changes: dict[str, str]) -> None:
    base = {"search": SEARCH}

    assert loads(base | changes).digest == loads(base).digest


@pytest.mark.parametrize(
    ("whole", "real"),
    [
        ("lr = 1", "lr = 1.0"),
        ("l2 = 0", "l2 = 0.0"),
        ("lr = { choice = [1, 0.1] }", "lr = { choice = [1.0, 0.1] }"),
        ("mixup = { uniform = [0, 1] }", "mixup = { uniform = [0.0, 1.0] }"),
        (
            'optimizer = { choice = ["sgd", "adamw"] }\nlr = { sgd = 1, adamw = { log = [1e-3, 1] } }',
            'optimizer = { choice = ["sgd", "adamw"] }\nlr = { sgd = 1.0, adamw = { log = [1e-3, 1.0] } }',
        ),
    ],
)
def test_a_real_number_written_without_a_point_is_the_same_number(whole: str, real: str) -> None:
    assert loads({"search": whole}) == loads({"search": real})
    assert loads({"search": whole}).digest == loads({"search": real}).digest


def test_a_percentile_written_without_a_point_is_the_same_number() -> None:
    studies = [loads({"pruner": f'kind = "percentile"\npercentile = {value}'}) for value in ("30", "30.0")]

    assert studies[0].digest == studies[1].digest


def test_one_block_is_not_all_blocks() -> None:
    assert loads({"search": "transfer_depth = 1"}).digest != loads({"search": "transfer_depth = 1.0"}).digest


def test_a_weights_file_may_lie_anywhere_but_is_not_a_name() -> None:
    digests = [
        loads({"model": f'backbone = "resnet50"\nweights = "{weights}"'}).digest
        for weights in ("a/w.pth", "/b/v.safetensors", "w.pt", "none", "default")
    ]

    assert digests[0] == digests[1] == digests[2]
    assert len(set(digests[2:])) == 3


@pytest.mark.parametrize(
    ("weights", "is_file"),
    [
        ("default", False),
        ("none", False),
        ("IMAGENET1K_V2", False),
        ("w.pth", True),
        ("~/w.safetensors", True),
    ],
)
def test_a_weights_file_is_told_from_a_name(weights: str, is_file: bool) -> None:
    found = loads({"model": f'backbone = "resnet50"\nweights = "{weights}"'}).weights_file

    assert (found is not None) == is_file
    assert found is None or "~" not in str(found)


OTHER = [
    {"": 'name = "flowers"\nseed = 8'},
    {"": 'name = "flowers"\nseed = 7\nobjective = "log_loss"'},
    {"data": 'source = "data/flowers"\nval_fraction = 0.3'},
    {"data": 'source = "data/flowers"\ntest_fraction = 0.3'},
    {"data": 'source = "data/flowers"\nrepeats = 2'},
    {"data": 'source = "data/flowers"\nimages_max = 100'},
    {"data": 'source = "data/flowers"\nunreadable = "skip"'},
    {"data": 'source = "data/flowers"\nresize = "squash"'},
    {"data": 'source = "data/flowers"\nflip = false'},
    {"model": 'backbone = "resnet18"'},
    {"model": 'backbone = { choice = ["resnet50", "resnet18"] }', "search": "lr = 0.1"},
    {"model": 'backbone = "resnet50"\nweights = "none"'},
    {"budget": "trials = 60\nepochs = 31"},
    {"sampler": 'kind = "random"'},
    {"sampler": 'kind = "gp"'},
    {"sampler": 'kind = "gp"\nn_startup_trials = 11'},
    {"sampler": 'kind = "tpe"\nn_startup_trials = 9'},
    {"sampler": 'kind = "tpe"\nn_ei_candidates = 25'},
    {"pruner": 'kind = "none"'},
    {"pruner": 'kind = "median"\nmin_epochs = 3'},
    {"pruner": 'kind = "median"\nn_startup_trials = 6'},
    {"pruner": 'kind = "percentile"'},
    {"pruner": 'kind = "successive_halving"'},
    {"pruner": 'kind = "hyperband"'},
    {"pruner": 'kind = "promotion"'},
    {"pruner": 'kind = "hyperband"\nreduction_factor = 4'},
    {"search": ""},
    {"search": "lr = { log = [1e-4, 1.0] }"},
    {"search": "lr = { log = [1e-4, 0.5] }\ntransfer_depth = { int = [0, 17] }"},
    {"search": "lr = { uniform = [1e-4, 1.0] }\ntransfer_depth = { int = [0, 17] }"},
    {"search": "lr = { log = [1e-4, 1.0] }\ntransfer_depth = { int = [1, 17] }"},
    {"search": "lr = { log = [1e-4, 1.0] }\ntransfer_depth = { uniform = [0, 1] }"},
    {"search": SEARCH + "\nl2_sp = { log = [1e-4, 1.0] }"},
    {"search": SEARCH + "\nl2_sp = { log = [1e-4, 1.0], zero = true }"},
    {"search": SEARCH + "\nl2_sp = 0.1"},
    {"search": SEARCH + '\noptimizer = "sgd"'},
]


def test_the_digest_sees_everything_that_changes_a_trial() -> None:
    base = {"search": SEARCH}

    digests = [loads(base).digest, *(loads(base | changes).digest for changes in OTHER)]

    assert len(set(digests)) == len(digests)


def test_stretch_is_read_under_its_former_name_with_the_digest_that_it_had() -> None:
    text = (
        'name="a"\n[data]\nsource="x"\nresize="{}"\n[model]\nbackbone="resnet18"\n'
        "[budget]\ntrials=3\nepochs=2\n"
    )
    studies = [spec.loads(text.format(word), "x.toml") for word in ("squash", "stretch")]

    assert [study.data.resize for study in studies] == ["stretch", "stretch"]
    assert [study.digest for study in studies] == ["e2aaa9913b5fb039"] * 2  # of the version before


def test_bits_are_part_of_the_digest_only_where_they_are_set() -> None:
    plain, none, twelve = (
        loads({"data": f'source = "data/flowers"\n{line}'}).digest for line in ("", "bits = 0", "bits = 12")
    )

    assert plain == none != twelve


@pytest.mark.parametrize(
    ("said", "same"),
    [
        ("norm_depth = 0", True),
        ("norm_depth = 0.0", True),
        ('norm_affine = "train"', True),
        ("norm_depth = 1", False),
        ("norm_depth = { int = [0, 17] }", False),
        ('norm_affine = "keep"', False),
    ],
)
def test_a_study_from_before_statistics_could_be_kept_has_its_digest(said: str, same: bool) -> None:
    before = loads({"search": "lr = 0.1"})

    assert (loads({"search": f"lr = 0.1\n{said}"}).digest == before.digest) is same


def test_a_digest_is_sixteen_hex_digits_that_stay_the_same() -> None:
    digest = spec.loads(DESIGN, "x.toml").digest

    assert len(digest) == 16
    assert int(digest, 16) >= 0
    assert digest == spec.loads(DESIGN, "y.toml").digest


def test_the_meaning_names_every_key_by_its_table_but_those_that_change_no_trial() -> None:
    keys = spec.meaning(loads({"search": "lr = 0.1"}))

    assert {"seed", "objective", "data.flip", "model.backbone", "budget.epochs", "search.lr"} <= keys.keys()
    assert not {"name", "data.source", "budget.trials", "budget.hours", "confirm.seeds"} & keys.keys()


def test_a_study_does_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        loads().name = "other"  # type: ignore[misc]


def test_a_key_at_its_default_that_came_later_leaves_the_digest() -> None:
    file = 'name = "a"\n[data]\nsource = "d"\n[model]\nbackbone = "b"\n{}\n[budget]\ntrials = 1\nepochs = 1\n'
    plain = spec.loads(file.format(""), "a.toml")
    assert spec.loads(file.format("compile = false"), "a.toml").digest == plain.digest
    assert "model.compile" not in spec.meaning(plain)
    assert spec.loads(file.format("compile = true"), "a.toml").digest != plain.digest
