"""Whether a follow-up study with the ranges of `tlopt next` finds more than going on in the first ranges.

    python -m benchmarks.next_study.compare benchmarks/defaults/curves/*.json

Searches on the surrogates of benchmarks/defaults: N trials, then N more, either in a follow-up study that
begins with the first N, or in the same study. Both share the first N trials, so that differences are paired.
Ranges are the whole recorded ones, or a random half of each, as somebody might have guessed them. Prints a
Markdown table.
"""

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from benchmarks.defaults.replay import Floats, read
from benchmarks.defaults.surrogate import Surrogate, features, fit_surrogate
from tlopt import spec
from tlopt.analysis.explain.explanation import Explanation, explain
from tlopt.confirmation.interval import half_width
from tlopt.model.facts import BackboneFacts
from tlopt.propose.next_file import NewRange, next_file
from tlopt.search.samplers import InitialPointsSampler
from tlopt.search.space import decode_params, encode_point, search_space
from tlopt.spec import PerOptimizer, Study
from tlopt.spec.point import Point, seed_for
from tlopt.storage import attributes

BLOCKS, BACKBONE = 17, "efficientnet_lite0"
FACTS = BackboneFacts(
    n_blocks={BACKBONE: BLOCKS},
    transferable=True,
    resolution={BACKBONE: 64},
    batch_norm={BACKBONE: True},
    plain_lr={BACKBONE: {"adamw": 1e-3, "sgd": 1e-2}},
)
FILE = """name = "first"
[data]
source = "images"
[model]
backbone = "efficientnet_lite0"
[budget]
trials = 1
epochs = 8
[search]
transfer_depth = {{ int = {transfer_depth} }}
freeze_depth = {{ int = {freeze_depth} }}
lr = {{ log = {lr} }}
lr_ratio = {{ log = {lr_ratio} }}
l2_sp = {{ log = {l2_sp}, zero = true }}
augmentation = {{ uniform = {augmentation} }}
"""
WHOLE: dict[str, tuple[float, float]] = {
    "transfer_depth": (8, 17),
    "freeze_depth": (0, 17),
    "lr": (1e-4, 2e-2),
    "lr_ratio": (0.03, 1.0),
    "l2_sp": (1e-4, 1.0),
    "augmentation": (0.0, 1.0),
}
_WHOLE_NUMBERS, _LOG = ("transfer_depth", "freeze_depth"), ("lr", "lr_ratio", "l2_sp")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Regrets in points of accuracy, without noise, after 2 N trials; and what the follow-up changed."""

    found: tuple[float, float]  # of the best trial: straight on, follow-up
    chosen: tuple[float, float]  # of the trial with the best value
    changes: tuple[str, ...]  # "lr extended"


def ranges(start: str, random: np.random.Generator) -> dict[str, tuple[float, float]]:
    """The ranges of a first study."""
    return WHOLE if start == "whole" else {name: _half(name, *ends, random) for name, ends in WHOLE.items()}


def _half(name: str, low: float, high: float, random: np.random.Generator) -> tuple[float, float]:
    start = random.uniform(0, 0.5)
    if name in _LOG:
        one, two = (low * (high / low) ** at for at in (start, start + 0.5))
        return float(f"{one:.2g}"), float(f"{two:.2g}")
    one, two = (low + at * (high - low) for at in (start, start + 0.5))
    return (round(one), round(two)) if name in _WHOLE_NUMBERS else (round(one, 2), round(two, 2))


def search(
    study: Study, surrogate: Surrogate, n: int, seed: int, begun_with: Sequence[FrozenTrial] = ()
) -> list[FrozenTrial]:
    """The trials of a search, those that it begins with first; the mean is a trial's user attribute."""
    space = search_space(study)
    sampler = InitialPointsSampler(lambda _: [], study.sampler, seed=seed_for(seed, study.name))
    opened = optuna.create_study(direction="maximize", sampler=sampler)
    opened.add_trials(begun_with)
    random = np.random.default_rng(seed_for(seed, study.name, len(begun_with)))
    for _ in range(n):
        trial = opened.ask(dict(space))
        point = decode_params(trial.params, study, FACTS)
        mean = float(surrogate.mean(np.array([features(point.as_dict())]))[0])
        trial.set_user_attr("mean", mean)
        trial.set_user_attr(attributes.POINT, point.as_dict())
        opened.tell(trial, mean + surrogate.noise * float(random.standard_normal()))
    return opened.get_trials(deepcopy=False)


def follow_up(study: Study, text: str, found: Explanation) -> Study:
    """The study of the file that `tlopt next` would write."""
    new = [
        NewRange(key=d.key, dimension=d.after, reason=d.reason)
        for d in found.changes
        if not isinstance(d.after, PerOptimizer)
    ]
    return spec.loads(next_file(text, new, name="second", earlier="first", title=""), "second")


def carried(trials: Sequence[FrozenTrial], study: Study) -> Iterator[FrozenTrial]:
    """Those of `trials` whose points the study can draw, with its distributions."""
    space = search_space(study)
    for trial in trials:
        params = encode_point(Point.from_dict(trial.user_attrs[attributes.POINT]), study, FACTS)
        if params is not None:
            yield optuna.create_trial(
                params=params, distributions=space, value=trial.value, user_attrs=trial.user_attrs
            )


def pair(surrogate: Surrogate, start: str, n: int, seed: int) -> Pair:
    """One search and its two ways on."""
    chosen = ranges(start, np.random.default_rng(seed))
    text = FILE.format(**{name: list(ends) for name, ends in chosen.items()})
    study = spec.loads(text, "first")
    straight = search(study, surrogate, 2 * n, seed)
    first = straight[:n]
    found = explain(study, first, n_blocks=BLOCKS)
    on = straight
    if found.changes:
        second = follow_up(study, text, found)
        begun = list(carried(first, second))
        on = [*first, *search(second, surrogate, n, seed, begun)[len(begun) :]]
    regrets = [_regrets(trials, surrogate) for trials in (straight, on)]
    return Pair(
        found=(regrets[0][0], regrets[1][0]),
        chosen=(regrets[0][1], regrets[1][1]),
        changes=tuple(f"{d.key} {d.kind}" for d in found.changes),
    )


def _regrets(trials: Sequence[FrozenTrial], surrogate: Surrogate) -> tuple[float, float]:
    means = np.array([trial.user_attrs["mean"] for trial in trials])
    values = np.array([trial.value for trial in trials], dtype=np.float64)
    return 100 * (surrogate.best - float(means.max())), 100 * (surrogate.best - float(means[values.argmax()]))


def row(start: str, images: int, n: int, pairs: Sequence[Pair]) -> str:
    """A row of the table; differences with 95 % intervals, below 0 where the follow-up is ahead."""
    changed = [each for each in pairs if each.changes]
    cells = [start, str(images), str(n), str(len(pairs)), f"{len(changed)}"]
    for name in ("found", "chosen"):
        both = np.array([getattr(each, name) for each in pairs])
        cells += [f"{both[:, 0].mean():.2f}", _difference(both)]
    return f"| {' | '.join(cells)} |"


def _difference(both: Floats) -> str:
    gaps = both[:, 1] - both[:, 0]
    return f"{gaps.mean():+.2f} ± {half_width(float(gaps.std(ddof=1)), len(gaps)):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("curves", nargs="+", type=Path)
    parser.add_argument("--trials", nargs="+", type=int, default=[16, 30], help="N")
    parser.add_argument("--seeds", type=int, default=16, help="searches of each set")
    parser.add_argument("--images", nargs="+", type=int, default=[48, 500], help="validation images")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    fitted = {file: (fit_surrogate(read(file)), read(file).n_val) for file in args.curves}
    columns = ("ranges", "images", "N", "pairs", "changed", *("straight on", "follow-up") * 2)
    print(f"| {' | '.join(columns)} |")
    print("| --- " * len(columns) + "|")
    kinds: Counter[str] = Counter()
    for start, images, n in product(("whole", "half"), args.images, args.trials):
        # the standard deviation of an accuracy falls with the root of the number of images
        surrogates = [replace(s, noise=s.noise * (n_val / images) ** 0.5) for s, n_val in fitted.values()]
        pairs = [pair(each, start, n, seed) for each in surrogates for seed in range(args.seeds)]
        print(row(start, images, n, pairs), flush=True)
        kinds.update(change for each in pairs for change in each.changes)
    print("\n" + ", ".join(f"{change} {count}" for change, count in kinds.most_common()))


if __name__ == "__main__":
    main()
