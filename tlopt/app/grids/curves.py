"""Curves of a grid for a terminal, for programs, and as a figure."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tlopt.analysis.claims import claims_of
from tlopt.analysis.curves import EPOCH, STUDY, Curve, Curves, curves_of, key_title, sort_key, value_name
from tlopt.analysis.shape import ERROR, Difference, paired, possible_best
from tlopt.app.grids.capacity import capacity_lines, n_trained_of, threshold
from tlopt.app.handle import Session
from tlopt.confirmation.interval import half_width
from tlopt.spec import Study
from tlopt.spec.algorithms import GridSampler
from tlopt.spec.dimensions import Fixed, Scalar
from tlopt.spec.objectives import TITLES, measured, percent_words, scale_of, value_words
from tlopt.storage.studies import stored_spec
from tlopt.system.words import counted, joined

_PLACES_NAMED = 12
_NO_NOISE = Fixed(0.0)


def read_curves(*sessions: Session, over: str = "") -> Curves:
    """The curves of the sessions' grids as the databases have them now.

    Raises:
        SpecError: a study is not a grid, `over` does not vary, or the grids cannot be drawn as one.
        NotReady: one was not begun, or has no complete trial.
    """
    opened = [session.optuna_study() for session in sessions]
    return curves_of(*((stored_spec(each), each) for each in opened), over=over)


def figure_file(found: Curves) -> Path:
    """Default path of the figure."""
    more = f"+{len(found.names) - 1}" if len(found.names) > 1 else ""
    return Path("exports") / f"{found.names[0]}{more}.curves.png"


def draw(found: Curves, path: Path) -> Path:
    """Draw the curves to `path`, or the means of recipes if nothing else varies; return it."""
    from tlopt.plots.curves import Line, draw_curves, draw_means

    title = f"{found.title}: mean and 95 % interval over {_seeds(found)}"
    if not found.over:
        return draw_means(
            path,
            [curve.name for curve in found.curves],
            [float(np.nanmean(curve.values[0])) for curve in found.curves],
            [_half(curve.values[0]) for curve in found.curves],
            objective=found.study.objective,
            title=title,
        )
    several = [key for key in found.curves[0].keys if len({curve.keys[key] for curve in found.curves}) > 1]
    panel_keys = several[1:]
    panels: dict[str, list[Line]] = {}
    for curve in found.curves:
        panel = ", ".join(value_name(key, curve.keys[key]) for key in panel_keys)
        line = Line(
            label=value_name(several[0], curve.keys[several[0]]) if several else "",
            x=tuple(float(place) for place in curve.places),
            mean=tuple(float(value) for value in np.nanmean(curve.values, axis=1)),
            half_width=tuple(_half(row) for row in curve.values),
            train=curve.train,
            threshold=threshold(found, curve),
        )
        panels.setdefault(panel, []).append(line)
    return draw_curves(
        path,
        panels,
        x_title=key_title(found.over),
        log_x=found.over in ("epoch", "train_images") or found.study.is_log(found.over),
        objective=found.study.objective,
        title=title,
    )


def shown(found: Curves) -> Group:
    """Tables, then what can be told of them, then the claims of papers."""
    parts: list[RenderableType] = [Text(line) for line in head_lines(found)]
    if found.has_recipes:
        parts += [_recipe_table(found, index) for index in range(len(_recipe_places(found)))]
        parts += [Text(line) for line in recipe_lines(found)]
    else:
        for curve in found.curves:
            counts = n_trained_of(found, curve)
            parts.append(_curve_table(found, curve, counts))
            parts += [Text(line) for line in curve_lines(found, curve)]
            parts += [Text(line) for line in capacity_lines(found, curve, counts)]
    claims = [claim.words for claim in claims_of(found)]
    if claims:
        parts += [Text(""), Text("Claims of papers, on these images and with these settings:")]
        parts += [Text(f"- {line}") for line in claims]
    return Group(*parts, Text(""), *(Text(line) for line in foot_lines(found)))


def head_lines(found: Curves) -> Iterator[str]:
    """What was measured, and what is missing."""
    of = f", {counted(found.n_val, 'image')}" if found.n_val else ""
    yield f"{found.title}: {TITLES[found.study.objective]} on validation{of}, {_seeds(found)}"
    if found.n_ended < found.n_planned:
        yield f"not finished: {found.n_ended} of {counted(found.n_planned, 'trial')} have ended"
    for outcome, n in found.without_value.items():
        yield f"without a value: {counted(n, 'trial')} {outcome}"


def foot_lines(found: Curves) -> Iterator[str]:
    """The meaning of the intervals."""
    yield (
        "Intervals: 95 %, Student's t over seeds, of differences in pairs of the same seed. What is said of a"
        f" whole curve allows for all of its comparisons together (error {100 * ERROR:.0f} %)."
    )
    if found.n_splits > 1:
        yield (
            f"Seeds take turns at {found.n_splits} splits. Their images overlap, so intervals are rather too"
            " narrow for other images."
        )
    else:
        yield (
            "They cover the chance of training and, with train_images, the draw of the training images; all"
            " seeds have the same validation images."
        )
    if _has_train(found):
        yield (
            "In training: accuracy on the images and labels as trained on"
            f"{_with_false_labels(found.study)}, during the"
            + (" epoch." if found.over == EPOCH else " last epoch.")
        )
    if found.tuned:
        yield (
            "* Chosen among several points, for each seed by the mean over the others:"
            f" {joined(found.tuned, _PLACES_NAMED)}. Such values vary together: their intervals are rather"
            " too narrow, and what may be the best allows for it."
        )


def curve_lines(found: Curves, curve: Curve) -> Iterator[str]:
    """Sentences on one curve: its best mean, where the optimum may lie, its ends, a second peak."""
    shape, objective, n = curve.shape, found.study.objective, len(curve.places)
    named = [value_name(found.over, place) for place in curve.places]
    best = value_words(float(np.nanmean(curve.values[shape.best])), objective)
    yield f"Best mean: {best} at {named[shape.best]}. {_place_sentence(curve, named)}"
    if n > 1 and shape.ends is not None:
        yield f"Ends: {named[-1]} minus {named[0]}: {difference_sentence(shape.ends, objective)}."
    if n > 2:
        if shape.dip is not None:
            one, low, other = (named[i] for i in shape.dip)
            yield f"Two peaks: {low} is worse than {one} and than {other}."
        else:
            yield "No place is shown to be worse than one before and one after it, so no second peak is seen."


def _place_sentence(curve: Curve, named: list[str]) -> str:
    possible = joined([named[i] for i in curve.shape.possible], _PLACES_NAMED)
    match curve.shape.place:
        case "inside":
            return f"The optimum lies inside, both ends are worse; possible: {possible}."
        case "first" | "last":
            return f"The optimum is at an end: every other place is worse than {possible}."
        case "near first":
            return f"The optimum cannot be told from the end {named[0]}; possible: {possible}."
        case "near last":
            return f"The optimum cannot be told from the end {named[-1]}; possible: {possible}."
        case "both":
            return f"Where the optimum lies cannot be told, not even from either end; possible: {possible}."
        case "unknown":
            return "Too few seeds to tell where the optimum lies."


def difference_sentence(difference: Difference, objective: str) -> str:
    """A difference and its interval: "+3.2 points (95 % interval -0.5 to +6.9, 5 seeds): not told apart"."""
    scale, digits = scale_of(objective, abs(difference.mean))
    unit = "" if scale == 1 else " points"
    said = f"{scale * difference.mean:+.{digits}f}{unit}"
    if math.isnan(difference.half_width):
        return f"{said} (a single seed, so no interval)"
    low, high = (scale * (difference.mean + sign * difference.half_width) for sign in (-1, 1))
    interval = f"95 % interval {low:+.{digits}f} to {high:+.{digits}f}, {counted(difference.n, 'seed')}"
    return f"{said} ({interval})" + ("" if difference.is_told else ": not told apart")


def _curve_table(found: Curves, curve: Curve, counts: Sequence[int]) -> Table:
    first = compared_with(found, curve)
    table = Table(title=curve.name or None, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(key_title(found.over), justify="right")
    table.add_column(TITLES[found.study.objective], justify="right", no_wrap=True)
    if first is not None:
        table.add_column(f"minus {first.keys[STUDY]}", justify="right", no_wrap=True)
    has_train = not all(map(math.isnan, curve.train))
    if has_train:
        table.add_column("in training", justify="right")
    has_counts = bool(counts) and found.over != EPOCH
    if has_counts:
        table.add_column("parameters", justify="right")
    table.add_column("seeds", justify="right")
    table.add_column("optimum")
    for index, (place, row) in enumerate(zip(curve.places, curve.values, strict=True)):
        train = curve.train[index]
        table.add_row(
            f"{place:g}" if isinstance(place, float) else str(place),
            mean_words(row, found.study.objective),
            *([] if first is None else [_gain_over(first, curve, index, found)]),
            *(["" if math.isnan(train) else percent_words(train)] if has_train else []),
            *([f"{counts[index]:,}"] if has_counts else []),
            str(int(np.isfinite(row).sum())),
            "possible" if index in curve.shape.possible else "",
        )
    return table


def compared_with(found: Curves, curve: Curve) -> Curve | None:
    """The curve of the first study with the same other keys; None for that curve and for a single study."""
    if curve.keys.get(STUDY, found.names[0]) == found.names[0]:
        return None
    wanted = {**curve.keys, STUDY: found.names[0]}
    return next((each for each in found.curves if each.keys == wanted), None)


def _gain_over(first: Curve, curve: Curve, index: int, found: Curves) -> str:
    """The paired difference to the first study at a place, as in "+3.2 ± 1.1"; "" without one."""
    place = curve.places[index]
    if place not in first.places:
        return ""
    gain = paired(curve.values[index], first.values[first.places.index(place)], step=found.step)
    return "" if gain is None else gain_cell(gain, found.study.objective)


def mean_words(row: np.ndarray[Any, np.dtype[np.float64]], objective: str) -> str:
    """The mean of a row and half of its interval, as in "74.3 ± 2.1 %"."""
    known = row[np.isfinite(row)]
    scale, digits = scale_of(objective, float(known.mean()))
    half = "" if len(known) < 2 else f" ± {scale * _half(row):.{digits}f}"
    return f"{scale * known.mean():.{digits}f}{half}" + ("" if scale == 1 else " %")


def _half(row: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    known = row[np.isfinite(row)]
    return half_width(float(known.std(ddof=1)), len(known)) if len(known) > 1 else math.nan


def _has_train(found: Curves) -> bool:
    return not all(math.isnan(value) for curve in found.curves for value in curve.train)


def _with_false_labels(study: Study) -> str:
    """The warning that training accuracy counts false labels as right; "" for a study without them."""
    recipes = study.sampler.recipes.values() if isinstance(study.sampler, GridSampler) else ()
    in_recipes = any("label_noise" in recipe for recipe in recipes)
    noisy = in_recipes or study.search.get("label_noise", _NO_NOISE) != _NO_NOISE
    return ", false labels included" if noisy else ""


def _seeds(found: Curves) -> str:
    return counted(max(curve.values.shape[1] for curve in found.curves), "seed")


# Recipes


def _recipe_places(found: Curves) -> list[Scalar]:
    return sorted({place for curve in found.curves for place in curve.places}, key=sort_key)


def recipe_rows(found: Curves, place: Scalar) -> tuple[list[str], Any]:
    """Names of the recipes that have values at a place, and these (recipes, seeds)."""
    rows = [
        (curve.name, curve.values[curve.places.index(place)])
        for curve in found.curves
        if place in curve.places
    ]
    return [name for name, _ in rows], np.stack([row for _, row in rows])


def possible_recipes(found: Curves, place: Scalar) -> list[str]:
    """The recipes that may be the best one at a place, with 95 % confidence."""
    names, values = recipe_rows(found, place)
    sign = 1 if found.study.direction == "maximize" else -1
    choices = [
        sign * curve.choices[curve.places.index(place)] for curve in found.curves if place in curve.places
    ]
    return [names[i] for i in possible_best(sign * values, step=found.step, choices=choices)]


def recipe_gain(found: Curves, place: Scalar, name: str) -> Difference | None:
    """The paired difference of a recipe to the first one at a place."""
    names, values = recipe_rows(found, place)
    return paired(values[names.index(name)], values[0], step=found.step)


def _recipe_table(found: Curves, index: int) -> Table:
    place, objective = _recipe_places(found)[index], found.study.objective
    names, values = recipe_rows(found, place)
    title = value_name(found.over, place) if found.over else None
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("recipe")
    table.add_column(TITLES[objective], justify="right")
    table.add_column(f"minus {names[0]}", justify="right")
    table.add_column("best")
    possible = possible_recipes(found, place)
    for name, row in zip(names, values, strict=True):
        gain = None if name == names[0] else recipe_gain(found, place, name)
        table.add_row(
            f"{name} *" if name in found.tuned else name,
            mean_words(row, objective),
            "" if gain is None else gain_cell(gain, objective),
            "possible" if name in possible else "",
        )
    return table


def gain_cell(gain: Difference, objective: str) -> str:
    """As in "+3.2 ± 1.1", without the half width for a single seed."""
    scale, digits = scale_of(objective, abs(gain.mean))
    half = "" if math.isnan(gain.half_width) else f" ± {scale * gain.half_width:.{digits}f}"
    return f"{scale * gain.mean:+.{digits}f}{half}"


def recipe_lines(found: Curves) -> Iterator[str]:
    """A sentence for each place: which recipes may be the best."""
    for place in _recipe_places(found):
        where = f"{value_name(found.over, place)}: " if found.over else ""
        possible = possible_recipes(found, place)
        names, values = recipe_rows(found, place)
        means = np.nanmean(values, axis=1)
        best = names[int(np.argmax(means) if found.study.direction == "maximize" else np.argmin(means))]
        others = [name for name in possible if name != best]
        if len(names) == len(possible):
            yield f"{where}no recipe can be told from the best mean, {best}."
        elif others:
            untold = joined(others, _PLACES_NAMED)
            yield f"{where}best mean: {best}; not told from it: {untold}; the others are worse."
        else:
            yield f"{where}{best} is the best: every other recipe is worse."


# For programs


def as_dict(found: Curves, figure: Path) -> dict[str, Any]:
    """The curves with their shapes, and the claims; see `measured` for the digits of values."""
    claims = [
        {"source": claim.source, "claim": claim.text, "curve": claim.of, "seen": claim.seen}
        for claim in claims_of(found)
    ]
    values = {
        "study": found.study.name,
        **({"studies": list(found.names)} if len(found.names) > 1 else {}),
        "objective": found.study.objective,
        "direction": found.study.direction,
        "split": "val",
        "images": found.n_val,
        "over": found.over,
        "trials_ended": found.n_ended,
        "trials_planned": found.n_planned,
        "without_value": dict(found.without_value),
        "chosen_on_other_seeds": list(found.tuned),
        "curves": [_curve_dict(found, curve) for curve in found.curves],
        "claims": claims,
        "figure": str(figure),
    }
    if found.has_recipes:
        values["best_recipes"] = [
            {"at": place, "possible": possible_recipes(found, place)} for place in _recipe_places(found)
        ]
    return dict(measured(values))


def _curve_dict(found: Curves, curve: Curve) -> dict[str, Any]:
    ends, shape, fits = curve.shape.ends, curve.shape, threshold(found, curve)
    row: dict[str, Any] = {
        "keys": dict(curve.keys),
        "at": list(curve.places),
        "values": [[None if math.isnan(v) else v for v in row] for row in curve.values.tolist()],
        "mean": [float(np.nanmean(row)) for row in curve.values],
        "train_accuracy": [None if math.isnan(value) else value for value in curve.train],
        "half_width": [None if math.isnan(_half(row)) else _half(row) for row in curve.values],
    }
    if found.has_recipes:
        return row
    return row | {
        "trained_parameters": list(n_trained_of(found, curve)) or None,
        "training_images_times_classes": list(curve.n_labels),
        "interpolation_threshold": None if fits is None else curve.places[fits],
        "best": curve.places[shape.best],
        "possible": [curve.places[i] for i in shape.possible],
        "optimum": shape.place,
        "dip": None if shape.dip is None else [curve.places[i] for i in shape.dip],
        "ends": None
        if ends is None
        else {
            "difference": ends.mean,
            "half_width": None if math.isnan(ends.half_width) else ends.half_width,
            "seeds": ends.n,
        },
    }
