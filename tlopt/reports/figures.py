"""The figures of a report, with their captions."""

import html
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from optuna.trial import TrialState

from tlopt.analysis.explain.effects import PairEffect
from tlopt.analysis.explain.observations import Key
from tlopt.analysis.explain.surface import CONFIDENCE
from tlopt.analysis.explain.words import place_words
from tlopt.plots.axes import even_ticks, log_ticks
from tlopt.plots.series import Array, best_so_far, evenly, value_limits
from tlopt.reports import alt
from tlopt.reports import svg as plots
from tlopt.reports.data import Report
from tlopt.spec.dimensions import Int, Log, Uniform
from tlopt.spec.objectives import COST_TITLES, TITLES, cost, front_of, value_words
from tlopt.spec.outcome import Outcome
from tlopt.spec.search_keys import RULES, Depth
from tlopt.storage.attributes import TrialRecord, best_first
from tlopt.system.words import counted

POINTS_MAX = 800  # points per figure; each takes a hundred bytes of the page
_BEST_DRAWN = 20  # number of best points that are always drawn
_DEPTHS = ("transfer_depth", "freeze_depth", "norm_depth")
_MAP_TICKS = 4
_TICK_GAP = 0.1  # of the axis, between ticks of a map
_UNITS = {"latency_ms": ", ms", "bytes": ", bytes"}
_STRENGTHS = ("l2_sp", "l2", "lr", "lr_ratio")


@dataclass(frozen=True)
class ReportFigure:
    """A figure as SVG with its caption."""

    svg: str  # in the colours of the surrounding page
    caption: str

    @property
    def standalone(self) -> str:
        """The text of an SVG file, in colours for a white background."""
        return plots.standalone(self.svg)

    def _repr_html_(self) -> str:
        """The figure and its caption, for notebooks."""
        return f"<figure>{self.standalone}<figcaption>{html.escape(self.caption)}</figcaption></figure>"


def sections(report: Report) -> dict[str, list[ReportFigure]]:
    """All figures of a report by section; a list is empty if there is nothing to draw."""
    return {
        **({"front": list(_front_figures(report))} if report.study.cost_objectives else {}),
        "progress": list(_progress_figures(report)),
        "depths": list(_depth_figures(report)),
        "strengths": list(_strength_figures(report)),
        "pairs": list(_pair_figures(report)),
        "curves": list(_curve_figures(report)),
    }


def _front_figures(report: Report) -> Iterator[ReportFigure]:
    """The metric against each cost that is an objective, with the front of the two."""
    study = report.study
    trials = [trial for trial in best_first(report.snapshot.trials, study.direction) if len(trial.values) > 1]
    for place, name in enumerate(study.cost_objectives, 1):
        known = [trial for trial in trials if trial.values[place] > 0]
        if not known:
            continue
        x = np.array([trial.values[place] for trial in known])
        values = np.array([trial.value or 0.0 for trial in known])
        on = np.zeros(len(known), dtype=np.bool_)
        on[front_of([(cost(value, study.direction), at) for value, at in zip(values, x, strict=True)])] = True
        label = COST_TITLES[name] + _UNITS.get(name, "")
        said = alt.front_text(x[on], values[on], cost_name=name, objective=study.objective, n=len(known))
        svg = plots.front_svg(x, values, on, xlabel=label, objective=study.objective, alt=said)
        yield ReportFigure(
            svg,
            f"Validation {TITLES[study.objective]} of complete trials against {COST_TITLES[name]}. The line"
            " joins those that no other trial beats in both.",
        )


def _progress_figures(report: Report) -> Iterator[ReportFigure]:
    """Best value so far against finished trials, and against hours of work."""
    ended = [trial for trial in report.snapshot.trials if trial.state.is_finished() and trial.counts]
    if not any(trial.has_value for trial in ended):
        return
    ended.sort(key=lambda trial: (trial.finished is None, trial.finished or 0, trial.number))
    given = [trial.value if trial.outcome == Outcome.COMPLETE else None for trial in ended]
    best = best_so_far(given, report.study.direction)
    values = np.array([np.nan if value is None else value for value in given])
    hours = np.cumsum([trial.seconds or 0.0 for trial in ended]) / 3600
    scale, unit = (1.0, "hours") if hours[-1] >= 2 else (60.0, "minutes")
    axes = ((np.arange(1.0, len(ended) + 1), "finished trials"), (scale * hours, f"{unit} of work"))
    n = sum(value is not None for value in given)
    for x, label in axes:
        kept = _drawn(np.where(np.isnan(values), -np.inf, values), POINTS_MAX)
        # all steps of the best-so-far line are drawn, so that thinning does not change it
        steps = np.flatnonzero(np.diff(best, prepend=np.nan) != 0)
        index = np.union1d(kept, steps)
        svg = plots.progress_svg(
            x[index],
            values[index],
            best[index],
            xlabel=label,
            objective=report.study.objective,
            alt=alt.progress_text(x, best, label=label, objective=report.study.objective),
        )
        drawn = int(np.isfinite(values[index]).sum())
        note = _of(drawn, n) + _outside(values[index], report)
        yield ReportFigure(svg, f"Best validation value so far against {label}.{note}")


def _depth_figures(report: Report) -> Iterator[ReportFigure]:
    """Values against depths, separately for each backbone, because numbers of blocks differ."""
    networks = _networks(report)
    names = sorted({str((trial.point or {})["backbone"]) for trial in networks})
    for name in names:
        trials = [trial for trial in networks if (trial.point or {})["backbone"] == name]
        for key in _DEPTHS:
            of = f" of {name}" if len(names) > 1 else ""
            yield from _dependence(report, trials, key, f"{key}{of}, in blocks")


def _strength_figures(report: Report) -> Iterator[ReportFigure]:
    """Values against learning rates and penalty strengths."""
    for key in _STRENGTHS:
        yield from _dependence(report, _networks(report), key, key)


def _pair_figures(report: Report) -> Iterator[ReportFigure]:
    """Maps of the objective over two keys, with the other keys as the trials had them."""
    for pair in report.explanation.maps:
        mean = pair.draws.mean(axis=0)
        low, high = float(mean.min()), float(mean.max())
        shown = plots.Map(
            shades=(mean - low) / (high - low or 1.0),
            labels=(pair.keys[0].name, pair.keys[1].name),
            ticks=(_ticks(pair, 0), _ticks(pair, 1)),
            trials=np.column_stack([_on_cells(pair, axis, pair.trials[:, axis]) for axis in (0, 1)]),
        )
        objective = report.study.objective
        worst, best = (value_words(_value(at, report), objective) for at in (low, high))
        yield ReportFigure(
            plots.surface_svg(shown, alt=alt.surface_text(pair, objective, best=best)),
            f"Validation {TITLES[objective]} over {pair.keys[0].name} and {pair.keys[1].name}, with the"
            f" other keys as the trials had them: {worst} where it is palest, {best} where it is darkest."
            f" Dots: {len(pair.trials)} complete and pruned trials.",
        )


def _ticks(pair: PairEffect, axis: int) -> list[tuple[float, str]]:
    """Places on an axis, with the key's values there."""
    positions = _tick_positions(pair, axis)
    places = _on_cells(pair, axis, positions)
    far = np.diff(places, prepend=-1.0) >= _TICK_GAP  # the lowest value would touch "off"
    positions, places = positions[far], places[far]
    names = [place_words(pair.keys[axis], float(position)) for position in positions]
    return list(zip(places.tolist(), names, strict=True))


def _tick_positions(pair: PairEffect, axis: int) -> Array:
    """Positions of round values of the key and of "off"; those of cells where it has no such values."""
    key = pair.keys[axis]
    match key.dimension:
        case Int(low, high):
            values = even_ticks(low, high, whole=True)
        case Uniform(low, high):
            values = even_ticks(low, high, whole=False)
        case Log(low, high, zero):
            values = [*([0.0] if zero else []), *log_ticks(low, high)]
        case _:
            return pair.at[axis][evenly(len(pair.at[axis]), _MAP_TICKS)]
    return np.array([key.position(value) for value in values])


def _is_off(key: Key, position: float) -> bool:
    return isinstance(key.dimension, Log) and key.value(position) == 0


def _on_cells(pair: PairEffect, axis: int, positions: Array) -> Array:
    """Places on an axis of equal cells, as fractions of it; "off" is the middle of its cell."""
    at = pair.at[axis]
    borders = np.concatenate([[0.0], (at[1:] + at[:-1]) / 2, [1.0]])
    places = np.interp(positions, borders, np.linspace(0, 1, len(borders)))
    off = [_is_off(pair.keys[axis], float(position)) for position in positions]
    return np.where(off, 0.5 / len(at), places)


def _value(goodness: float, report: Report) -> float:
    return goodness if report.study.direction == "maximize" else -goodness


def _band(report: Report, key: str) -> plots.Band | None:
    """What the key does alone; None for a key without an effect to show, and for depths as fractions."""
    effect = next((each for each in report.explanation.effects if each.key.name == key), None)
    if effect is None or not isinstance(effect.key.dimension, (Int, Log, Uniform)):
        return None
    if isinstance(RULES[key], Depth) and not isinstance(effect.key.dimension, Int):
        return None  # the figure counts blocks
    mean, low, high = effect.band
    if report.study.direction == "minimize":
        mean, low, high = -mean, -high, -low
    return plots.Band(
        x=np.array([float(effect.key.value(float(at))) for at in effect.at]),
        mean=mean,
        low=low,
        high=high,
        label=f"this key alone, {100 * CONFIDENCE:.0f} %",
    )


def _networks(report: Report) -> list[TrialRecord]:
    """Complete trials of networks, best first: the keys drawn do not affect linear classifiers."""
    return [trial for trial in report.ranked if trial.is_network]


def _curve_figures(report: Report) -> Iterator[ReportFigure]:
    """Learning curves of the best trials, with those of pruned trials in the background."""
    if not report.curves_best and not report.curves_pruned:
        return
    n_pruned = report.snapshot.outcomes.get(Outcome.PRUNED, 0)
    svg = plots.learning_curves_svg(
        [curve.values for curve in report.curves_best],
        [curve.values for curve in report.curves_pruned],
        objective=report.study.objective,
        alt=alt.curves_text(
            [curve.values for curve in report.curves_best],
            [curve.values for curve in report.curves_pruned],
            number=next((curve.number for curve in report.curves_best), None),
            objective=report.study.objective,
        ),
    )
    of = f" of {n_pruned}" if len(report.curves_pruned) < n_pruned else ""
    parts = []
    if report.curves_best:
        parts.append(f"the best complete trials ({len(report.curves_best)})")
    if report.curves_pruned:
        parts.append(f"in grey pruned ones ({len(report.curves_pruned)}{of})")
    yield ReportFigure(svg, f"Validation after each epoch: {', '.join(parts)}.")


def _dependence(report: Report, trials: list[TrialRecord], key: str, label: str) -> Iterator[ReportFigure]:
    """The figure for one key; nothing if all trials have the same value of it."""
    x = np.array([float((trial.point or {}).get(key, np.nan)) for trial in trials])
    values = np.array([float(trial.value or 0.0) for trial in trials])
    finite = np.isfinite(x) & np.isfinite(values)
    x, values = x[finite], values[finite]
    if len(np.unique(x)) < 2:
        return
    shown = evenly(len(x), POINTS_MAX, keep=range(min(_BEST_DRAWN, len(x))))
    log = report.study.is_log(key) and bool((x > 0).any()) and bool((x >= 0).all())
    band = _band(report, key)
    svg = plots.dependence_svg(
        x,
        values,
        shown=shown.tolist(),
        key=label,
        log=log,
        objective=report.study.objective,
        alt=alt.dependence_text(
            x, values, key=label.removesuffix(", in blocks"), off=log, objective=report.study.objective
        ),
        band=band,
    )
    zero = " Left of the dotted line: off (0)." if log and (x == 0).any() else ""
    note = zero + _of(len(shown), len(x)) + _outside(values, report)
    n_linear = sum(trial.point is not None and not trial.is_network for trial in report.ranked)
    note += f" Left out: {counted(n_linear, 'linear classifier')}." if n_linear else ""
    note += (
        " The band also counts trials that were pruned or could not be trained."
        if band is not None and _has_incomplete(report)
        else ""
    )
    yield ReportFigure(svg, f"{len(x)} complete trials.{note}")


def _has_incomplete(report: Report) -> bool:
    """Whether trials were pruned or could not be trained, which explanations count."""
    return any(
        trial.state == TrialState.PRUNED and trial.is_network and trial.counts
        for trial in report.snapshot.trials
    )


def _drawn(values: Array, n_max: int) -> Array:
    """Ascending indices to draw: at most `n_max` evenly spaced ones with a value, and the last."""
    finite = np.flatnonzero(np.isfinite(values))
    return np.union1d(finite[evenly(len(finite), n_max)], [len(values) - 1]).astype(np.int64)


def _of(drawn: int, n: int) -> str:
    return f" {drawn} of {n} points are drawn." if drawn < n else ""


def _outside(values: Array, report: Report) -> str:
    low, high = value_limits(values, report.study.direction)
    n = int(((values < low) | (values > high)).sum())
    return f" Outside the figure: {counted(n, 'trial')} of the worst." if n else ""
