"""One network on one set of images for `benchmarks.compact.sizes`: its searches, and its runs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from numpy.typing import NDArray
from optuna.trial import TrialState
from torch import nn

from benchmarks.compact.sizes_settings import (
    DEPTHS,
    HEADER,
    PARTLY,
    RATES,
    STRUCTURE,
    WITHIN,
    Settings,
    first_structures,
)
from benchmarks.compact.sizes_tables import LONGER
from benchmarks.compact.sizes_training import latencies, taught_by
from tlopt import spec
from tlopt.compact.cost import count
from tlopt.compact.prune import PruningRound, Recipe, begin_pruning, pruning_events
from tlopt.data.batches import Images
from tlopt.data.load import test_split
from tlopt.errors import Diverged, SpecError
from tlopt.model.network import Network
from tlopt.search.defaults import Default, defaults
from tlopt.search.plan import search_plan
from tlopt.search.portfolio import KEPT_RATE
from tlopt.search.samplers import InitialPointsSampler
from tlopt.search.space import decode_params, search_space, suggest_params
from tlopt.spec import Study
from tlopt.spec.default_names import KEPT_LABEL, PARTLY_LABEL, PLAIN_LABEL
from tlopt.spec.objectives import excess_over
from tlopt.spec.point import Point
from tlopt.spec.trial_spec import PruneGoal, recipe_point
from tlopt.storage.attributes import OUTCOME_CONSTRAINT, POINT
from tlopt.training.inference import exported_logits
from tlopt.training.loop import train_epochs
from tlopt.trial.workspace import Workspace

DEFAULTS = (PLAIN_LABEL, KEPT_LABEL, PARTLY_LABEL)
WHOLE, TUNED = "whole", "fine-tuned"  # the best of all, and the best without frozen blocks
LOSS_MAX = 0.01


@dataclass(frozen=True)
class Cell:
    """A network and a set of images."""

    backbone: str
    folder: Path
    weights: str
    settings: Settings = field(default_factory=Settings)

    @property
    def header(self) -> dict[str, Any]:
        """What its lines begin with."""
        recorded = self.settings.recorded
        names = {"network": self.backbone, "data": self.folder.name}
        return names | ({"settings": recorded} if recorded else {})

    def study(self, more: str = "", *, resolution: str = "") -> Study:
        """The study of the rates alone, or with further keys."""
        text = HEADER.format(
            source=self.folder,
            backbone=self.backbone,
            weights=self.weights,
            epochs=self.settings.epochs,
            resolution=resolution or self.settings.resolution,
        )
        return spec.loads(text + RATES + more, "sizes.toml")

    @cached_property
    def workspace(self) -> Workspace:
        """Images and weights."""
        return Workspace.open(self.study(), torch.device("cpu"))

    # Searches

    def searched(self, whole: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """The trials of both searches.

        Args:
            whole: those of the whole network, if they are known.
        """
        whole = whole or self._whole()
        found: dict[str, Any] = {"kind": "search", "whole": whole}
        if not self.settings.limit:
            return found | {"structure": self._structures()}
        rows, n_infeasible = self._structures_within(int(self.settings.limit * whole[0]["multiply_adds"]))
        return found | {"structure": rows, "infeasible": n_infeasible}

    def _whole(self) -> list[dict[str, Any]]:
        """The defaults of the whole network, and further rates."""
        study, facts = self.study(), self.workspace.facts
        known = [each for each in defaults(study, facts) if each.label in DEFAULTS]
        first = [self._trial(each.point, number) | {"label": each.label} for number, each in enumerate(known)]
        return [*first, *self._rates(known, first)]

    def _rates(self, known: Sequence[Default], rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Rates of the whole network by TPE, which knows the defaults."""
        space = search_space(self.study())
        opened = optuna.create_study(direction="maximize", sampler=_sampler())
        for each, row in zip(known, rows, strict=True):
            if each.params is not None:
                opened.add_trial(
                    optuna.create_trial(params=each.params, distributions=space, value=row["val"])
                )
        for index in range(self.settings.rates):
            trial = opened.ask()
            point = decode_params(suggest_params(trial, space), self.study(), self.workspace.facts)
            row = self._trial(point, 100 + index)
            opened.tell(trial, row["val"])
            yield row

    def _structures(self) -> list[dict[str, Any]]:
        """Structures by TPE for accuracy and multiply-adds.

        The first ones are partly frozen, as the default of that name: four fifths of their blocks are frozen,
        and a layer of the neck is fresh.
        """
        study = self.study(STRUCTURE)
        space = search_space(study)
        opened = optuna.create_study(directions=["maximize", "minimize"], sampler=_sampler())
        for depth in DEPTHS:
            values = {"backbone_depth": depth, "freeze_depth": 0.8 * depth, **PARTLY}
            opened.enqueue_trial(values)
        rows = []
        for index in range(self.settings.structures):
            trial = opened.ask()
            point = decode_params(suggest_params(trial, space), study, self.workspace.facts)
            rows.append(self._trial(point, 200 + index))
            opened.tell(trial, [rows[-1]["val"], rows[-1]["multiply_adds"]])
        return rows

    def _structures_within(self, limit: int) -> tuple[list[dict[str, Any]], int]:
        """Structures by tlopt's own search for accuracy with `[constraints]`, and how many broke the limit.

        The first structures come first, then tlopt's initial points. Those beyond the limit are not trained.
        """
        settings = self.settings
        sides = f"{{ choice = {list(settings.resolutions)} }}" if settings.resolutions else ""
        study = self.study(WITHIN.format(limit=limit), resolution=sides)
        plan = search_plan(study, self.workspace.facts, 1)
        sampler = InitialPointsSampler(
            plan.initial_points, study.sampler, seed=study.seed, transform=plan.sampler_trials
        )
        opened = optuna.create_study(direction="maximize", sampler=sampler)
        for values in first_structures(settings.first, settings.resolutions):
            opened.enqueue_trial(values)
        rows = list[dict[str, Any]]()
        while len(rows) < settings.structures:
            trial = opened.ask()
            point = plan.draw(trial).point
            trial.set_user_attr(POINT, point.as_dict())
            excess = excess_over(plan.limits, self.workspace.counted_cost(point))
            is_within = all(each <= 0 for each in excess.values())
            for name, each in {OUTCOME_CONSTRAINT: -1.0 if is_within else 1.0, **excess}.items():
                trial.set_constraint(name, each)
            if is_within:
                rows.append(self._trial(point, 200 + len(rows)) | {"number": trial.number})
                opened.tell(trial, rows[-1]["val"])
            else:
                opened.tell(trial, state=TrialState.PRUNED)
        return rows, len(opened.trials) - len(rows)

    def _trial(self, point: Point, seed: int) -> dict[str, Any]:
        network = self.trained(point, seed)
        return {
            "point": point.as_dict(),
            "val": self.accuracies(network, point)["val"],
            **_cost(network, point),
        }

    # Runs

    def run(self, search: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """One seed: the networks, and what each way of pruning makes of them."""
        whole, tuned, small = chosen_points(search, within=bool(self.settings.limit))
        networks: dict[str, tuple[nn.Module, int]] = {}
        rows: dict[str, list[dict[str, Any]]] = {}
        network = self.trained(whole, seed)
        rows[WHOLE] = [self._row(network, whole)]
        networks[WHOLE] = network.net, whole.resolution
        rows[TUNED] = rows[WHOLE] if tuned == whole else [self._row(self.trained(tuned, seed), tuned)]
        if "longer" in self.settings.ways:
            longer = replace(tuned, epochs=self.settings.all_epochs)
            rows[LONGER] = [self._row(self.trained(longer, seed), longer)]
        goal = self._goal(rows[WHOLE][0], rows[WHOLE][0])
        gentle = self._gentle(whole)
        if "l1" in self.settings.ways:
            rows["l1"], _ = self._pruned(network, gentle, replace(goal, criterion="l1"), seed)
        if "stage 2" in self.settings.ways:
            rows["stage 2"], nets = self._pruned(network, gentle, goal, seed)
            networks |= {f"stage 2 {index}": (net, whole.resolution) for index, net in enumerate(nets, 1)}
        if "stage 2 all fast" in self.settings.ways and whole.freeze_depth:
            own = recipe_point(whole, epochs=self.settings.round_epochs)
            rows["stage 2 all fast"], _ = self._pruned(network, own, goal, seed)
        shorter = self.trained(small, seed)
        rows["structure"] = [self._row(shorter, small)]
        networks["structure 0"] = shorter.net, small.resolution
        goal = self._goal(rows["structure"][0], rows[WHOLE][0])
        gentle = self._gentle(small)
        rows["tlopt"] = []
        if "tlopt" in self.settings.ways and goal.share < 1:
            rows["tlopt"], nets = self._pruned(shorter, gentle, goal, seed)
            networks |= {f"tlopt {index}": (net, small.resolution) for index, net in enumerate(nets, 1)}
        if "tlopt taught" in self.settings.ways:
            with taught_by(shorter):
                rows["tlopt taught"], _ = self._pruned(shorter, gentle, goal, seed)
        latency = {} if seed else latencies(networks)
        return {"kind": "run", "seed": seed, "rows": rows, "latency": latency}

    def _goal(self, before: Mapping[str, Any], whole: Mapping[str, Any]) -> PruneGoal:
        """What is left of a network; with a limit on structures, the end is a share of the whole one."""
        share = self.settings.end
        if self.settings.limit:
            share *= whole["multiply_adds"] / before["multiply_adds"]
        return PruneGoal(quantity="multiply_adds", share=share, n_rounds=self.settings.rounds, loss_max=1.0)

    def _gentle(self, point: Point) -> Point:
        """tlopt's recipe for a pruned network, except that blocks which were frozen are trained with care.

        They keep their batch-norm statistics, and have the share of the rate that the default with kept
        statistics has.
        """
        share = KEPT_RATE[point.optimizer] if point.freeze_depth else 1.0
        return replace(
            recipe_point(point, epochs=self.settings.round_epochs),
            lr_ratio=share * point.lr_ratio,
            norm_depth=max(point.norm_depth, point.freeze_depth),
        )

    def trained(self, point: Point, seed: int) -> Network:
        """The network of `point` after training; of a run that diverges, as it is then."""
        split, images = self.workspace.data.splits[0], self.workspace.images(point)
        run = self.workspace.start_run(point, seed=seed, train=split.train)
        try:
            for _ in train_epochs(run, images, split.train, None):
                pass
        except Diverged:
            pass
        return run.network

    def _row(self, network: Network, point: Point) -> dict[str, Any]:
        return self.accuracies(network, point, test=True) | _cost(network, point)

    def accuracies(self, network: Network, point: Point, *, test: bool = False) -> dict[str, Any]:
        """On validation, and on test images if asked; with logits that are not finite 0.

        With test images also which of them are right, as bits in hexadecimal.
        """
        workspace = self.workspace
        val = self._right(network, workspace.images(point), point, workspace.data.splits[0].val)
        found: dict[str, Any] = {"val": _mean(val)}
        if test:
            held_out = test_split(workspace.study.data, seed=workspace.study.seed)
            indices = np.arange(len(held_out.labels))
            right = self._right(network, workspace.test_images(held_out, point), point, indices)
            bits = np.packbits(right).tobytes().hex()
            found |= {"test": _mean(right), "right": bits, "n_test": len(right)}
        return found

    def _right(
        self, network: Network, images: Images, point: Point, indices: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        logits = exported_logits(network, images, point, indices, self.workspace.device)
        found: NDArray[np.bool_] = np.isfinite(logits).all() & (logits.argmax(1) == images.labels[indices])
        return found

    def _pruned(
        self, network: Network, point: Point, goal: PruneGoal, seed: int
    ) -> tuple[list[dict[str, Any]], list[nn.Module]]:
        """The networks after each round, trained by `point`; fewer if one diverges or can't be so small."""
        workspace, split = self.workspace, self.workspace.data.splits[0]
        recipe = Recipe(
            point=point,
            images=workspace.images(point),
            train=split.train,
            val=split.val,
            pretrained=workspace.weights[self.backbone].state,
            n_classes=workspace.n_classes,
            seed=seed,
            device=workspace.device,
        )
        rows, nets = [], []
        try:
            pruning = begin_pruning(network, recipe, goal)
            for event in pruning_events(pruning):
                if not isinstance(event, PruningRound):
                    continue
                if event.index:
                    rows.append(self._row(pruning.network, point))
                    nets.append(pruning.network.net)
                if event.index == goal.n_rounds - 1 and self.settings.last_epochs:
                    longer = replace(point, epochs=self.settings.last_epochs)
                    pruning.recipe = replace(recipe, point=longer)
        except (Diverged, SpecError) as error:
            print(f"{self.header}, {goal.words}: {error}", flush=True)
        return rows, nets


def chosen_points(search: Mapping[str, Any], *, within: bool) -> tuple[Point, Point, Point]:
    """By validation: the best whole network, the best of those without frozen blocks, and a structure.

    Args:
        within: whether structures keep a limit, so that the best one is chosen. Otherwise it is the smallest
            that loses no more than allowed or, if each loses more, the best.
    """

    def best(rows: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
        return max(rows, key=lambda row: float(row["val"]))

    whole, structures = best(search["whole"]), search["structure"]
    tuned = best(row for row in search["whole"] if row.get("label") in (PLAIN_LABEL, KEPT_LABEL))
    near = [row for row in structures if row["val"] >= whole["val"] - LOSS_MAX - 1e-9]
    small = best(structures) if within or not near else min(near, key=lambda row: int(row["multiply_adds"]))
    found = (Point.from_dict(row["point"]) for row in (whole, tuned, small))
    return next(found), next(found), next(found)


def _cost(network: Network, point: Point) -> dict[str, int]:
    found = count(network.net, point.resolution)
    return {"parameters": found.parameters, "multiply_adds": found.multiply_adds}


def _mean(right: NDArray[np.bool_]) -> float:
    return round(float(right.mean()), 4)


def _sampler() -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(multivariate=True, n_startup_trials=3, seed=0)
