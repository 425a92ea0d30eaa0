"""Words for numbers, points, ranges and times, the same in tables, cards and reports.

Fractions are shown in per cent, log-loss unchanged.
"""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence

from tlopt.analysis.cost import Cost
from tlopt.analysis.snapshot import Snapshot
from tlopt.confirmation.evidence import Lead
from tlopt.confirmation.interval import IMAGES_MIN
from tlopt.confirmation.verdict import Spread, Verdict
from tlopt.spec import PerOptimizer, Study, dimensions
from tlopt.spec.dimensions import Dimension, Fixed
from tlopt.spec.objectives import TITLES, cost, percent_words, scale_of, value_words
from tlopt.spec.point import Point, completed
from tlopt.spec.sections import ENOUGH_AFTER, ENOUGH_MAX
from tlopt.storage.attributes import summary_of
from tlopt.system.words import counted, duration_words

RESOLUTION_IMAGES = 1000  # in smaller sets the share of one image, above 0.1 points, is stated


def spread_words(spread: Spread | None, objective: str) -> str:
    """Mean ± standard deviation; the mean alone for one value, an em dash if nothing was measured."""
    if spread is None:
        return "—"
    return spread.words(objective)


def gain_sentences(verdict: Verdict) -> Iterator[str]:
    """One sentence for each default among the candidates, the strongest first; then their explanation.

    Before them, why a cheaper point is chosen than that with the best mean, if it is.
    """
    if verdict.passed_over is not None:
        yield cost_sentence(verdict, verdict.passed_over)
    yield from (gain_sentence(verdict, label) for label in verdict.defaults)
    yield from resolution_sentences(verdict)


def gain_sentence(verdict: Verdict, label: str) -> str:
    """The gain of the chosen point over `label`, on test if read, else on validation, with its interval."""
    if verdict.chosen.label == label:
        return _itself(label) if verdict.passed_over is not None else default_sentence(verdict, label)
    split = verdict.split
    gain = verdict.gain(label, split=split)
    if gain is None:
        return f"The gain over {label} {'was not measured' if verdict.finished else 'is not measured yet'}."
    where = "test" if split == "test" else "validation, on which it was chosen"
    return (
        f"Against {label}, {TITLES[verdict.objective]} on {where}: {gain_words(gain, verdict.objective)}"
        f" ({interval_words(gain, verdict.objective)}): {standing_words(verdict, label)}."
    )


def condition_words(verdict: Verdict) -> str:
    """The end of a sentence about the choice: at which odds what is chosen; "" in earlier confirmations."""
    if not verdict.odds_min:
        return ""
    row = verdict.row(verdict.preferred)
    preferred = f", and another default over {row.label}," if row is not None and row.val else ""
    return (
        f"; a point of the search is chosen over the strongest default{preferred} only at odds of"
        f" {verdict.odds_min:g} to 1"
        + (", a dearer one over a cheaper one likewise" if verdict.cost_objectives else "")
    )


def cost_sentence(verdict: Verdict, passed: Lead) -> str:
    """Why the chosen candidate is taken for its cost; `passed`: the lead of the best mean over it."""
    return (
        f"{passed.over[0].upper()}{passed.over[1:]} costs less than {passed.point}, which has"
        f" {_odds_words(verdict, passed, better=passed.point)}, so the cheaper one is chosen."
    )


def default_sentence(verdict: Verdict, label: str) -> str:
    """Why the default `label` is chosen, or leads before every run has ended.

    No reason where a point is better by evidence, and the default stands in for it, see `Verdict.of`.
    """
    if not verdict.finished:
        return f"So far no searched point is ahead of {label} on validation."
    lead = verdict.lead
    over = label if lead is None else lead.over
    the = "the" if over == label else "a"
    preferred = _preferred_sentence(verdict)
    preferred = f" {preferred}" if preferred else ""
    if lead is None or lead.mean <= 0:
        return f"No searched point is ahead of {over} on validation; {the} default is chosen.{preferred}"
    if lead.odds >= verdict.odds_min:
        return _itself(label)
    return (
        f"No searched point is ahead of {over} beyond noise; {the} default is chosen. The best of them,"
        f" {lead.point}, has {_odds_words(verdict, lead)}.{preferred}"
    )


def _itself(label: str) -> str:
    return f"{label[0].upper()}{label[1:]} is itself the choice."


def _preferred_sentence(verdict: Verdict) -> str:
    """Why the preferred default is chosen before the strongest one or equal ones; "" if it is the best."""
    if verdict.equals_best_default:
        return f"Of the defaults with the best mean, {verdict.chosen.label} is preferred."
    lead = verdict.default_lead
    if lead is None:
        return ""
    return (
        f"Of the defaults, {lead.over} is preferred to {lead.point}, which has"
        f" {_odds_words(verdict, lead, better=lead.point)}."
    )


def _odds_words(verdict: Verdict, lead: Lead, *, better: str = "it") -> str:
    """A lead whose odds are too low; they are rounded down, since 2.96 to 1 is not what 3 to 1 asks for."""
    odds = math.floor(10 * lead.odds) / 10
    return (
        f"{difference_words(lead.mean, verdict.objective)} on validation: the odds that {better} is better"
        f" are {odds:.1f} to 1, and {verdict.odds_min:g} to 1 are needed"
    )


def gain_words(gain: Spread, objective: str) -> str:
    """A mean difference with its sign, such as "+20.2 points", or "+0.0312" for a log-loss."""
    return difference_words(gain.mean, objective)


def difference_words(difference: float, objective: str) -> str:
    """A difference of two values with its sign, as in `gain_words`."""
    scale, digits = scale_of(objective, difference)
    return f"{scale * difference:+.{digits}f}" + ("" if scale == 1 else " points")


def interval_words(gain: Spread, objective: str) -> str:
    """The paired interval of a difference, such as "95 % interval -0.5 to +4.5, 3 seeds"."""
    if gain.interval is None:
        return "a single seed, so no interval"
    scale, digits = scale_of(objective, max(map(abs, gain.interval)))
    low, high = (f"{scale * bound:+.{digits}f}" for bound in gain.interval)
    return f"95 % interval {low} to {high}, {counted(gain.n, 'seed')}"


def standing_words(verdict: Verdict, label: str) -> str:
    """Whether the chosen point is ahead of `label`, and the reason if they are not told apart."""
    split = verdict.split
    gain, standing = verdict.gain(label, split=split), verdict.standing(label, split=split)
    if gain is None or standing is None:
        return "not measured"
    if standing == "not told apart" and verdict.within_images(gain, split=split):
        return f"not told apart, a difference of fewer than {IMAGES_MIN} images"
    return standing


def resolution_sentences(verdict: Verdict) -> Iterator[str]:
    """The meaning of the interval and, for small sets, the weight of a single image."""
    others = [label for label in verdict.defaults if label != verdict.chosen.label]
    gains = [verdict.gain(label, split=verdict.split) for label in others]
    if not any(gain is not None and gain.interval is not None for gain in gains):
        return
    where = {"test": "test", "val": "validation"}[verdict.split]
    yield (
        "Interval: Student's t over the differences of runs with the same seed. It covers the chance of"
        f" training, not which images are in the {where} set."
    )
    n = verdict.n_images.get(verdict.split, 0)
    if verdict.objective != "log_loss" and 0 < n < RESOLUTION_IMAGES:
        yield (
            f"Of {counted(n, f'{where} image')}, each is {100 / n:.1f} points; a difference of fewer than"
            f" {IMAGES_MIN} images ({100 * IMAGES_MIN / n:.1f} points) can be chance."
        )


def dimension_words(dimension: Dimension | PerOptimizer) -> str:
    """A range in words, as in "0 to 17"."""
    match dimension:
        case PerOptimizer(sgd=sgd, adamw=adamw):
            return f"sgd {dimension_words(sgd)}; adamw {dimension_words(adamw)}"
        case Fixed(value):
            return str(value)
        case dimensions.Choice(options):
            return "one of " + ", ".join(map(str, options))
        case dimensions.Int(low, high):
            return f"{low} to {high}"
        case dimensions.Uniform(low, high):
            return f"{low:g} to {high:g}"
        case dimensions.Log(low, high, zero):
            return f"{low:g} to {high:g}, logarithmic" + (", or off" if zero else "")


LINEAR_WORDS = {"logistic": "logistic regression", "svm": "linear SVM"}


def describe(point: dict[str, object] | Point) -> str:
    """A point in one short line: depths, rates, pulls."""
    values = completed(point.as_dict() if isinstance(point, Point) else point)
    if values["classifier"] != "network":
        balanced = ", classes balanced" if values["class_weights"] == "balanced" else ""
        reduced = "".join(f", {said}" for said in training_words(values))
        return f"{LINEAR_WORDS[str(values['classifier'])]} on frozen features{balanced}{reduced}"
    parts = [
        *_neck_words(values),
        f"keep {values['transfer_depth']}",
        f"freeze {values['freeze_depth']}",
        f"lr {values['lr']:.2g}",
    ]
    if values["norm_depth"]:
        affine = " affine kept" if values["norm_affine"] == "keep" else ""
        parts.insert(2, f"norm {values['norm_depth']}{affine}")
    if values["lr_ratio"] != 1:
        parts.append(f"×{values['lr_ratio']:.2g}")
    if values["l2_sp"]:
        parts.append(f"L2-SP {values['l2_sp']:.2g}")
    if values["l2"]:
        parts.append(f"L2 {values['l2']:.2g}")
    return " ".join([*parts, *training_words(values)])


def describe_all(points: Sequence[Mapping[str, object] | Point]) -> list[str]:
    """Points in short lines, those whose backbones or resolutions differ with these at the front."""
    rows = [point.as_dict() if isinstance(point, Point) else dict(point) for point in points]
    several = {key: len({row[key] for row in rows if key in row}) > 1 for key in ("backbone", "resolution")}

    def words(row: dict[str, object]) -> str:
        parts = [str(row["backbone"])] if several["backbone"] and "backbone" in row else []
        parts += [f"{row['resolution']} px"] if several["resolution"] and "resolution" in row else []
        return " ".join([*parts, describe(row)]) if row else ""

    return [words(row) for row in rows]


def _neck_words(values: Mapping[str, object]) -> Iterator[str]:
    """As in "use 9 + 2×128", blocks of a shortened backbone and the neck's layers and channels."""
    if values["backbone_depth"]:
        neck = f" + {values['neck_layers']}×{values['neck_width']}" if values["neck_layers"] else ""
        yield f"use {values['backbone_depth']}{neck}"


def training_words(point: Mapping[str, object]) -> Iterator[str]:
    """The number of training images and the share of false labels, where a point does not use all as is."""
    if point["train_images"]:
        yield f"{point['train_images']} images"
    if point["label_noise"]:
        yield f"{percent_words(float(str(point['label_noise'])))} FALSE LABELS"


def structure_words(point: Point) -> str:
    """The structure of a shortened network, as in "9 blocks and a neck of 2 layers (3×3, 128 channels)"."""
    blocks = counted(point.backbone_depth, "block")
    if not point.neck_layers:
        return f"{blocks} without a neck"
    kind = "separable, " if point.neck_convolution == "separable" else ""
    layers, side = counted(point.neck_layers, "layer"), point.neck_kernel
    return f"{blocks} and a neck of {layers} ({kind}{side}×{side}, {point.neck_width} channels)"


def point_sentence(point: Point) -> str:
    """The meaning of a point's short line: blocks kept and frozen, rates, pulls."""
    kept, frozen = point.transfer_depth, point.freeze_depth
    if point.is_linear:
        return (
            f"{LINEAR_WORDS[point.classifier]} on features of the pretrained network, which is never trained;"
            " C was chosen by cross-validation on the training images"
        )
    used = [f"{structure_words(point)} are used"] if point.is_shortened else []
    said = [*used, "all blocks are fresh"]
    if kept:
        start = "block starts" if kept == 1 else f"{kept} blocks start"
        said = [*used, f"the first {start} from pretrained weights"]
    if frozen:
        which = "the first of them is" if frozen == 1 else f"the first {frozen} of them are"
        said.append(f"{which if kept > 1 else 'it is'} never trained")
    if point.norm_depth:
        which = "block" if point.norm_depth == 1 else f"{point.norm_depth} blocks"
        whole = ", weights and biases too" if point.norm_affine == "keep" else ""
        said.append(f"batch-norm layers of the first {which} keep their pretrained statistics{whole}")
    fresh = "fresh blocks, the neck among them," if point.neck_layers else "fresh blocks"
    said.append(f"the head and {fresh} learn at the rate {point.lr:.2g}")
    if point.lr_ratio != 1 and kept > frozen:
        said.append(f"kept blocks that are trained learn at {point.lr_ratio:.2g} of it")
    if point.l2_sp:
        said.append(
            f"L2-SP pulls kept weights back to their pretrained values, with strength {point.l2_sp:.2g}"
        )
    if point.l2:
        said.append(f"L2 pulls weights to zero, with strength {point.l2:.2g}")
    return "; ".join(said)


def drop_sentence(verdict: Verdict) -> str:
    """The chosen point's difference from validation to test; "" where test has not been read."""
    objective = verdict.objective
    val, test = (verdict.chosen.spread(objective, split=split) for split in ("val", "test"))
    if val is None or test is None:
        return ""
    worse = cost(test.mean, verdict.direction) - cost(val.mean, verdict.direction)
    scale, digits = scale_of(objective, worse)
    size = f"{scale * abs(worse):.{digits}f}" + ("" if scale == 1 else " points")
    if not float(f"{worse:.{digits + 2}f}"):
        return "Test agrees with validation."
    which = "worse" if worse > 0 else "better"
    why = (
        "; some drop is to be expected, since the point was chosen on validation"
        if worse > 0
        else "; that is chance, since the point was chosen on validation"
    )
    return f"Test is {size} {which} than validation{why}."


def best_sentence(snapshot: Snapshot) -> str:
    """The best trial so far, or in a confirmation the leading candidate; "" before there is one.

    "" for a grid and for prunings, which are compared at their end.
    """
    objective = snapshot.study.objective
    if snapshot.stage == "search":
        best = None if snapshot.study.is_grid else snapshot.best
        if best is None or best.value is None:
            return ""
        what = best.label or (describe(best.point) if best.point else "")
        name = f"trial {best.number}" + (f", {what}" if what else "")
        name = f"{best.label}, carried over" if best.is_carried else name
        return f"best so far: {value_words(best.value, objective)} ({name})"
    verdict = snapshot.verdict
    if snapshot.stage == "prune" or verdict is None or not verdict.chosen.val:
        return ""
    leader, n = verdict.chosen, snapshot.study.confirm.seeds
    mean = value_words(statistics.fmean(row[objective] for row in leader.val), objective)
    return (
        f"leading so far: {leader.label}, {mean} on validation over {len(leader.val)} of {counted(n, 'seed')}"
    )


def left_words(snapshot: Snapshot) -> str:
    """The time to the end of the last stage at the pace so far; "" if it cannot be estimated yet."""
    left = snapshot.left
    if left is None or left.seconds <= 0:
        return ""
    later = {"the confirmation": left.confirm, "prunings": left.prune}
    if not left.search:
        later.pop("the confirmation")
        later = later if left.confirm else {}
    parts = [f"{duration_words(seconds)} of it for {name}" for name, seconds in later.items() if seconds]
    most = "at most " if left.search and snapshot.study.budget.trials == "enough" else ""
    return ", ".join([f"{most}about {duration_words(left.seconds)} left", *parts])


def hours_sentence(snapshot: Snapshot) -> str:
    """The reason why no trial starts after budget.hours, and the cure; "" before."""
    if not snapshot.hours_are_over:
        return ""
    budget, planned = snapshot.study.budget, counted(snapshot.n_planned, "trial")
    return (
        f"budget.hours = {budget.hours:g} is over, with {snapshot.n_finished} of"
        f" {planned} finished: no further trial starts. Hours count from the study's"
        " first start, outages and pauses included; raise budget.hours in the study file to go on"
    )


def end_sentences(snapshot: Snapshot) -> Iterator[str]:
    """The reasons why no trial starts although the study runs, with the cures."""
    yield from filter(None, (enough_sentence(snapshot), hours_sentence(snapshot)))


def enough_sentence(snapshot: Snapshot) -> str:
    """The reason why `trials = "enough"` ended the search, and the cure; "" before, and for a number."""
    if snapshot.study.budget.trials != "enough":
        return ""
    end, cure = snapshot.enough, "; a number for budget.trials in the study file makes it go on"
    if end is not None:
        best = end.best.label if end.best.is_carried else f"trial {end.best.number}"
        return (
            f'trials = "enough": the search ended after {counted(end.n_trials, "trial")}, because the last'
            f" {ENOUGH_AFTER} found nothing better than {best}{cure}"
        )
    if snapshot.n_finished >= snapshot.n_planned:
        return f'trials = "enough": the search ended at its limit of {counted(ENOUGH_MAX, "trial")}{cure}'
    return ""


def winner_sentence(snapshot: Snapshot) -> str:
    """The chosen point, and Optuna's best trial if it is another one; "" before the choice."""
    chosen, best = snapshot.chosen, snapshot.best
    if chosen is None:
        return ""
    said = f"chosen by the confirmation: {chosen.label}"
    if (added := snapshot.best_added) is not None and added.number != chosen.number:
        value = value_words(added.value or 0.0, snapshot.study.objective)
        return (
            f"{said}. Optuna's best trial is {added.number}, {value}: it was added and not trained by tlopt"
        )
    if snapshot.study.objectives:  # Optuna has no single best trial there
        return said
    same = best is None or best.number == chosen.number or (best.label and best.label == chosen.label)
    if best is None or same or best.value is None:
        return said
    value = value_words(best.value, snapshot.study.objective)
    return (
        f"{said}. Optuna's best trial is {best.number}"
        + (f" ({best.label})" if best.is_carried else "")
        + f", {value}: the best single run of the search, which luck may have helped"
    )


def budget_words(study: Study) -> str:
    """The budget as text, as in "60 trials of at most 24 epochs, none started after 8 hours"."""
    budget = study.budget
    hours = f", none started after {counted(budget.hours, 'hour', form='g')}" if budget.hours else ""
    until = f", until {ENOUGH_AFTER} in a row find nothing better" if budget.trials == "enough" else ""
    return f"{budget.trials_words} of at most {counted(budget.epochs, 'epoch')}{hours}{until}"


def warm_start_sentence(snapshot: Snapshot) -> str:
    """The summary of the study's warm start; "" without one."""
    summary = summary_of(snapshot.warm_start)
    return f"warm start: {summary}" if summary else ""


def cost_words(cost: Cost) -> str:
    """A cost as text, as in "131 epochs, 25.1 minutes of processor time, 16.7 minutes of work"."""
    processor = (
        f"{duration_words(cost.processor_seconds)} of processor time, "
        if cost.processor_seconds is not None
        else ""
    )
    return f"{counted(cost.epochs, 'epoch', form=',')}, {processor}{duration_words(cost.seconds)} of work"
