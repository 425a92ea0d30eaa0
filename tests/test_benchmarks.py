"""Benchmarks have no import cycles, working commands and links, and figures that equal the records."""

import ast
import json
import re
import shlex
import statistics
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from benchmarks.chaos.schedule import schedule
from benchmarks.common.images import link_images
from benchmarks.defaults import portfolio, surrogate
from benchmarks.peers.curves import NAMES, curve, steps, table, targets
from benchmarks.peers.job import LINEAR_DRAW, Job, point_of, searched, study_of, untuned_points, user_prior
from benchmarks.peers.referee import Case, judgements
from benchmarks.peers.report import Recorded, final_table
from benchmarks.peers.search import from_reports
from benchmarks.recipes import report as recipes
from benchmarks.selection import choice, fourth_default, pools
from benchmarks.service import trials
from benchmarks.soup import compare
from tlopt import spec
from tlopt.search.portfolio import DEFAULT_RECIPES, STARTS
from tlopt.spec.algorithms import RandomSampler
from tlopt.storage.studies import open_storage

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
MODULES = sorted(BENCHMARKS.rglob("*.py"))
FOLDERS = sorted({file.parent for file in MODULES})
READMES = sorted(BENCHMARKS.rglob("README.md"))
FILES_MAX = 16


def name_of(file: Path) -> str:
    """The dotted name of a module in the repository."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def file_of(module: str) -> Path | None:
    """The file of a module or package in the repository; None if there is none."""
    at = ROOT.joinpath(*module.split("."))
    return next((file for file in (at.with_suffix(".py"), at / "__init__.py") if file.is_file()), None)


def imports(file: Path) -> Iterator[tuple[str, str]]:
    """Each (module, name) that `file` imports from benchmarks or tlopt, at any depth of its code."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("benchmarks", "tlopt"):
            yield from ((str(node.module), alias.name) for alias in node.names)


def imported_modules(file: Path) -> set[str]:
    return {
        f"{module}.{name}" if file_of(f"{module}.{name}") else module
        for module, name in imports(file)
        if module.startswith("benchmarks")
    }


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of a circle, or [] if there is none."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return []
        for other in sorted(graph.get(module, ())):
            if found := visit(other, [*path, module]):
                return found
        done.add(module)
        return []

    return next(filter(None, (visit(module, []) for module in sorted(graph))), [])


def test_no_import_circle() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c"]
    assert circle({name_of(file): imported_modules(file) for file in MODULES}) == []


def bound_names(body: Iterable[ast.AST]) -> set[str]:
    """Names that statements define, assign or import; functions and classes are not entered."""
    names: set[str] = set()
    for node in body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
                continue
            case ast.alias(name=name, asname=asname):
                names.add(asname or name)
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
        names |= bound_names(ast.iter_child_nodes(node))
    return names


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_imported_names_exist(file: Path) -> None:
    for module, name in imports(file):
        home = file_of(module)
        assert home is not None, f"there is no {module}"
        assert file_of(f"{module}.{name}") or name in bound_names(ast.parse(home.read_text()).body), (
            f"{module} has no {name}"
        )


def test_names_within_a_function_are_not_bound_by_the_module() -> None:
    code = "import a.b as c\nif c:\n    d = 1\ndef e():\n    f = 1\nclass G:\n    h: int = 2"
    assert bound_names(ast.parse(code).body) == {"c", "d", "e", "G"}


def test_each_folder_has_a_readme_and_few_files() -> None:
    assert len(FOLDERS) > 5
    for folder in FOLDERS:
        files = [file for file in folder.iterdir() if file.is_file()]
        assert (folder / "README.md") in files, folder
        assert len(files) <= FILES_MAX, folder


def commands(text: str) -> list[list[str]]:
    """The commands in `text` that run Python, continued lines joined, each from its `-m` on."""
    lines = text.replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines if re.search(r"^\s*\S*python -m ", line)]
    return [row[row.index("-m") + 1 :] for row in words]


def options(file: Path) -> set[str]:
    """The options that a script's parser defines."""
    calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    adds = [c for c in calls if isinstance(c.func, ast.Attribute) and c.func.attr == "add_argument"]
    return {str(c.args[0].value) for c in adds if isinstance(c.args[0], ast.Constant)}


def check_command(module: str, arguments: list[str]) -> None:
    file = file_of(module)
    assert file is not None, f"there is no {module}"
    assert '__name__ == "__main__"' in file.read_text(), f"{module} is no script"
    unknown = {word.split("=")[0] for word in arguments if word.startswith("--")} - options(file)
    assert not unknown, f"{module} has no {unknown}"


DOCUMENTS = {str(file.relative_to(ROOT)): file.read_text() for file in READMES} | {
    name_of(file): ast.get_docstring(ast.parse(file.read_text())) or "" for file in MODULES
}


@pytest.mark.parametrize("where", DOCUMENTS)
def test_commands_name_scripts_and_options_that_exist(where: str) -> None:
    for module, *arguments in commands(DOCUMENTS[where]):
        if module.startswith("benchmarks"):
            check_command(module, arguments)


def test_a_wrong_command_is_found() -> None:
    (known,) = commands("    python -m benchmarks.chaos.run \\\n      --out /tmp/x  # a comment")
    assert known == ["benchmarks.chaos.run", "--out", "/tmp/x"]
    check_command(*known[:1], known[1:])
    with pytest.raises(AssertionError, match="has no"):
        check_command("benchmarks.chaos.run", ["--outt"])


def test_every_script_is_documented_where_it_lies() -> None:
    for file in MODULES:
        if "ArgumentParser" in file.read_text() and "Started by" not in DOCUMENTS[name_of(file)]:
            shown = [module for module, *_ in commands((file.parent / "README.md").read_text())]
            started_by_a_library = file.name == "syne_tune_trial.py"
            assert name_of(file) in shown or started_by_a_library, file


def anchors(file: Path) -> set[str]:
    """The anchors of a Markdown file's headings, as GitHub forms them."""
    titles = re.findall(r"(?m)^#+ (.+)$", file.read_text())
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(file: Path, text: str) -> list[str]:
    broken = []
    for link in re.findall(r"\]\(\s*([^)\s]+)\s*\)", text):
        path, _, anchor = link.partition("#")
        target = file.parent / path if path else file
        if ":" not in link and not (target.exists() and (not anchor or anchor in anchors(target))):
            broken.append(link)
    return broken


@pytest.mark.parametrize("file", READMES, ids=lambda file: str(file.relative_to(ROOT)))
def test_links_lead_somewhere(file: Path) -> None:
    assert broken_links(file, "[a](#nowhere) [b](nothing.md) [c](https://example.org)") == [
        "#nowhere",
        "nothing.md",
    ]
    assert broken_links(file, file.read_text()) == []


def test_links_to_benchmarks_lead_somewhere() -> None:
    for file in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]:
        links = [link for link in broken_links(file, file.read_text()) if "benchmarks" in link]
        assert links == [], file


def test_the_table_beside_other_systems_is_that_of_the_recorded_searches() -> None:
    folder = BENCHMARKS / "peers" / "first"
    seconds = json.loads((folder / "settings.json").read_text())["seconds"]
    judged = judgements(folder / "referee.jsonl")
    runs = [json.loads(file.read_text()) for file in folder.glob("*-*-*.json")]
    curves = sorted(
        (curve(run, judged, seconds) for run in runs), key=lambda c: (c.data, list(NAMES).index(c.system))
    )
    sets = {c.data for c in curves}
    text = (BENCHMARKS / "peers" / "README.md").read_text()
    rows = table(curves, dict.fromkeys(sets, 0.0)).splitlines()[2:]
    assert len(rows) == 15
    for row in rows:
        trials, final = (cell.strip() for cell in row.split("|")[3:5])
        assert f"| {trials} | {final} |" in text, row
    for data in sets:
        assert f"{data}: target {100 * targets(curves, data)[0]:.1f}," in text


def recipe_line(data: str, recipe: str, seed: int, **test_accuracies: float) -> str:
    scores = {weights: {"test_accuracy": value} for weights, value in test_accuracies.items()}
    return json.dumps({"data": data, "recipe": recipe, "seed": seed, "scores": scores})


def test_recipes_are_compared_within_a_set_and_seed(tmp_path: Path) -> None:
    runs = [
        *(recipe_line(data, "train", seed, last=0.5, mean=0.51) for data in "abc" for seed in (0, 1)),
        *(
            recipe_line(data, "kept", 0, last=0.5 + gain)
            for data, gain in zip("abc", (0.1, 0.2, 0.3), strict=True)
        ),
        recipe_line("a", "kept", 1, last=0.8),
    ]
    (tmp_path / "results.jsonl").write_text("\n".join(runs))
    found = recipes.read(tmp_path / "results.jsonl")
    # sets count alike, whatever their seeds: a gains (10 + 30) / 2; the quantile of t with 2 degrees is 4.303
    half = 4.303 * statistics.stdev([20, 20, 30]) / 3**0.5
    head, _, level, kept, mean = recipes.table(found, "train").splitlines()
    assert head.endswith("| a | b | c |")
    assert level == "| train: accuracy, % | 6 | 50.0 | | 50.0 | 50.0 | 50.0 |"
    assert kept == f"| kept | 4 | +23.3 ± {half:.1f} | 3 / 0 | +20.0 | +20.0 | +30.0 |"
    assert mean == "| mean | 6 | +1.0 ± 0.0 | 0 / 0 | +1.0 | +1.0 | +1.0 |"


def test_the_tables_of_recipes_are_those_of_the_recorded_runs() -> None:
    folder = BENCHMARKS / "recipes"
    found = recipes.read(*(folder / f"{name}.jsonl" for name in ("results", "further", "regularisers")))
    text = (folder / "README.md").read_text()
    for base in recipes.BASES:
        assert recipes.table(found, base) in text


def planted_runs(**tests: Sequence[float]) -> dict[str, dict[portfolio.Case, portfolio.Run]]:
    """Runs on sets a, b, c, ... with these test accuracies, which validation sees exactly."""
    return {
        name: {
            (data, 0): portfolio.Run(value, 1.0, value) for data, value in zip("abcdef", values, strict=False)
        }
        for name, values in tests.items()
    }


def test_the_next_initial_point_is_the_one_that_adds_most_to_those_before_it() -> None:
    runs = planted_runs(broad=(70, 70, 70), similar=(71, 71, 60), other=(50, 50, 90))

    learnt = portfolio.learn(runs, runs["broad"], 3)

    assert learnt == ("broad", "other", "similar")  # alone, "similar" is second
    assert portfolio.learn(runs, runs["broad"], 2, ("other",)) == ("other", "similar")


def test_the_point_is_chosen_by_validation_then_log_loss_and_judged_by_test() -> None:
    runs = {
        "lucky": {("a", 0): portfolio.Run(90, 0.5, 60)},
        "unlucky": {("a", 0): portfolio.Run(90, 0.6, 80)},
        "worse": {("a", 0): portfolio.Run(80, 0.1, 90)},
    }

    assert portfolio.chosen_test(runs, tuple(runs), ("a", 0)) == 60
    assert portfolio.chosen_test(runs, ("unlucky", "worse"), ("a", 0)) == 80


def test_a_list_is_judged_on_sets_that_it_was_not_learnt_from() -> None:
    before = dict.fromkeys(portfolio.BEFORE, (50, 50, 50))
    runs = planted_runs(**before, fits_all=(60, 60, 60), fits_a=(70, 40, 40))

    judged = portfolio.judge(runs, (), [1])[1]

    # "fits_a" is the better one on a alone, and no list is learnt from a alone
    assert (judged.accuracy, judged.gains) == (60, (10, 10, 10))


def test_a_longer_list_needs_more_than_its_standard_error() -> None:
    def judged(accuracy: float, std_error: float) -> portfolio.Judged:
        return portfolio.Judged(accuracy, std_error, (0.0, 1.0))

    assert portfolio.n_supported({1: judged(70, 1.5), 2: judged(71, 0.0), 3: judged(70.5, 0.1)}) == 1
    assert portfolio.n_supported({1: judged(70, 0.5), 2: judged(71, 0.0), 3: judged(70.5, 0.1)}) == 2


def test_searches_start_from_the_points_that_the_recorded_runs_support() -> None:
    folder = BENCHMARKS / "recipes"
    runs = portfolio.read([folder / "results.jsonl", folder / "further.jsonl"])

    assert portfolio.learnt_starts(runs) == tuple(start.recipe for start in STARTS)
    text = (BENCHMARKS / "defaults" / "README.md").read_text()
    assert all(portfolio.table(runs, start) in text for start in ((), DEFAULT_RECIPES))


def test_a_rule_of_odds_asks_for_a_lead_in_standard_errors() -> None:
    def lead(mean: float) -> choice.Lead:
        return choice.Lead(mean=mean, std_error=1.0, low=-1.0, shrunk=0.0, true=0.0, test=0.0, test_error=1.0)

    assert choice.wide(3) == pytest.approx(0.67449, abs=1e-4)  # the upper quartile of a normal variable
    chosen = {name: [rule(lead(mean)) for mean in (-0.1, 0.6, 0.7)] for name, rule in choice.RULES.items()}
    assert chosen["best mean"] == [False, True, True]
    assert chosen["odds 3 to 1"] == [False, False, True]
    assert chosen["always the default"] == [False, False, False]


def test_recorded_pools_begin_with_their_defaults_and_are_drawn_together() -> None:
    found = pools.pools()
    assert [pool.n_defaults for pool in found] == [2] * 5 + [3] * 6 + [2] * 3
    two = pools.without_noise(np.array([0.4, 0.6]), 100)
    # binomial variance 0.24 / 100, of which 0.6 is a point's own: 0.00144 of the variance of 0.02
    assert two == pytest.approx(0.5 + np.array([-0.1, 0.1]) * (1 - 0.00144 / 0.02) ** 0.5)


def test_the_table_of_recorded_choices_is_that_of_the_recorded_runs() -> None:
    found = list(choice.recorded(np.random.default_rng(0), 200))
    names = ["best mean", "odds 2 to 1", "odds 3 to 1"]
    table_of_rules = choice.table(found, [index // 200 for index in range(len(found))], names)
    text = (BENCHMARKS / "selection" / "README.md").read_text()
    assert [line for line in table_of_rules.splitlines() if line not in text] == []


def test_a_fourth_default_is_one_of_the_searched_points_with_other_rights() -> None:
    # the fourth point leads by two standard errors of three to one, and by far less
    for lead, way_chosen in ((0.2, {"searched": 3, "default": 3}), (0.001, {"searched": 0, "default": 3})):
        values = np.array([[0.5, 0.4, 0.4, 0.5 + lead, 0.3, 0.3]] * 3)
        found = {
            "searched": fourth_default.chosen(values, 3, [3, 4, 5], 100),
            "default": fourth_default.chosen(values, 4, [4, 5], 100),
        }
        assert found == way_chosen
    assert (fourth_default.n_runs(3), fourth_default.n_runs(4)) == (21, 24)


def test_the_table_of_a_fourth_default_is_that_of_the_recorded_runs() -> None:
    text = (BENCHMARKS / "selection" / "README.md").read_text()
    recorded = list(fourth_default.table(list(fourth_default.recordings(200))))
    assert [line for line in recorded if line not in text] == []


def test_the_tables_of_soups_and_ensembles_are_those_of_the_recorded_runs() -> None:
    folder = BENCHMARKS / "soup"
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    lines = [*compare.table(rows), *compare.default_table(rows)]
    text = (folder / "README.md").read_text()
    assert [line for line in lines if line not in text] == []


def test_a_search_on_a_surrogate_begins_with_each_default_once_and_goes_on() -> None:
    first: list[dict[str, float]] = [
        {"transfer_depth": 17, "freeze_depth": depth, "lr": 0.01, "lr_ratio": 1.0, "l2_sp": 1e-4}
        | {"augmentation": 0.5}
        for depth in (17, 0)
    ]
    frozen_blocks = surrogate.Surrogate(mean=lambda x: x[:, 1], best=17.0, noise=0.0, r2=1.0, first=first)

    means = surrogate.search(frozen_blocks, RandomSampler(kind="random"), seed=0, n_trials=12).means

    assert list(means[:2]) == [17, 0]
    assert len(set(means[2:])) > 2


def test_simulated_trials_end_complete(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/simulated.db")
    study = optuna.create_study(study_name=trials.STUDY, storage=storage, direction="maximize")
    for worker in (trials.Ours(storage, beating=False), trials.Stock(storage)):
        worker.trial(trials.NoTally())
        worker.close()
    last = trials.N_EPOCHS - 1
    assert [trial.value for trial in study.get_trials()] == [trials.value(n, last) for n in range(2)]
    assert [len(trial.intermediate_values) for trial in study.get_trials()] == [trials.N_EPOCHS] * 2


@pytest.mark.parametrize("n_workers", [1, 8])
def test_the_schedule_of_faults_never_hits_what_is_still_down(n_workers: int) -> None:
    faults = schedule(seed=2, minutes=10, n_workers=n_workers)
    assert faults == schedule(seed=2, minutes=10, n_workers=n_workers)
    for slot in {fault.slot for fault in faults}:
        own = [fault for fault in faults if fault.slot == slot]
        assert all(first.until < second.at for first, second in pairwise(own))
    assert all(fault.until < 600 for fault in faults)


PROPOSED = """
name = "a"
objective = "balanced_accuracy"
[data]
source = "images"
images_max = 100
[model]
backbone = "resnet18"
[budget]
trials = 12
epochs = 6
[search]
resolution = 96
classifier = { choice = ["network", "logistic", "svm"] }
transfer_depth = { int = [4, 9] }
freeze_depth = { int = [0, 9] }
norm_depth = { int = [0, 9] }
lr = { log = [1e-4, 2e-2] }
lr_ratio = { log = [0.03, 1.0] }
l2_sp = { log = [0.5, 50.0], zero = true }
augmentation = { choice = [0.2, 0.7] }
class_weights = { choice = ["none", "balanced"] }
"""


def test_all_systems_search_the_space_that_tlopt_proposes() -> None:
    study = spec.loads(study_of(PROPOSED, 3), "study.toml")
    assert (study.seed, study.objective, study.data.images_max) == (3, "accuracy", 0)
    assert set(searched(study)) == {
        "transfer_depth", "freeze_depth", "norm_depth", "lr", "lr_ratio", "l2_sp", "augmentation",
        LINEAR_DRAW,
    }  # fmt: skip
    prior = user_prior(study)
    assert set(prior) == set(searched(study))
    assert point_of(study, prior) == untuned_points(study)["fine-tuning with kept statistics"]
    kinds = [point_of(study, prior | {LINEAR_DRAW: k}).classifier for k in range(10)]
    assert kinds == ["logistic", "svm", *["network"] * 8]


def test_a_point_that_is_evaluated_again_or_in_parts_is_one_trial(tmp_path: Path) -> None:
    study = spec.loads(study_of(PROPOSED, 3), "study.toml")
    point = untuned_points(study)["plain fine-tuning"]
    job = Job(data="", folder=str(tmp_path), seed=0, began=0.0, seconds=1.0)
    for trial, epoch, accuracy in (("a", 0, 0.1), ("b", 0, 0.2), ("a", 1, 0.3), ("a", 1, 0.9)):
        job.report(trial, point, epoch, accuracy)
    found = {tuple(t["accuracy"]): t["complete"] for t in from_reports(job, epochs=2)["trials"]}
    assert found == {(0.1, 0.3): True, (0.2,): False}


def _run(system: str, seed: int, seconds: float, point: dict[str, Any], **more: Any) -> dict[str, Any]:
    trial = {"seconds": seconds, "accuracy": [0.5], "complete": True, "point": point}
    return {"data": "a", "seed": seed, "system": system, "trials": [trial], **more}


def test_a_search_ends_with_its_confirmed_choice_if_that_was_in_time() -> None:
    plain, kept = untuned_points(spec.loads(PROPOSED, "study.toml")).values()
    choice = {"seconds": 9.0, "point": kept.as_dict(), "label": "kept"}
    run = _run("tlopt", 0, 5.0, plain.as_dict(), choice=choice, candidates=[])
    assert steps(run, 10.0) == [(5.0, plain), (9.0, kept)]
    assert steps(run, 8.0) == [(5.0, plain)]


def test_the_end_of_searches_is_compared_in_pairs_and_the_oracle_chooses_on_other_images() -> None:
    plain, kept = untuned_points(spec.loads(PROPOSED, "study.toml")).values()
    key = {point: Case(Path("a"), point).key for point in (plain, kept)}
    runs = []
    for seed in (0, 1):
        choice = {"seconds": 9.0, "point": kept.as_dict(), "label": "kept"}
        runs.append(_run("tlopt", seed, 5.0, plain.as_dict(), choice=choice, candidates=[]))
        runs.append(_run("plain", seed, 5.0, plain.as_dict()))
    recorded = Recorded(
        settings={"seconds": 10.0},
        runs=runs,
        judged={key[plain]: [0.5, 0.5], key[kept]: [0.6, 0.8]},
        halves={key[plain]: (0.9, 0.1), key[kept]: (0.6, 0.8)},
        untuned={"plain fine-tuning": plain},
    )
    rows = final_table(recorded).splitlines()
    assert "| plain script: Optuna, TPE, median | 50.0 (50.0 to 50.0) | 50.0 | +20.0" in rows[2]
    # by the first half plain fine-tuning is the best, 0.1 on the other; by the second the kept one, 0.6
    assert "| oracle of tlopt's searches | 35.0 (35.0 to 35.0) | 35.0 |" in rows[-1]


def test_linked_images_are_spread_over_the_classes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for index in range(4):
            file = tmp_path / "data" / "train" / name / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"")
    (tmp_path / "data" / "val").mkdir()
    linked = link_images(tmp_path / "data", tmp_path / "linked", {"train": 4, "val": None})
    found = sorted(str(file.relative_to(linked)) for file in linked.rglob("*.png"))
    assert [name.split("/")[1] for name in found] == ["a", "a", "b", "b"]
