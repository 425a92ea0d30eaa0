"""A report as one HTML page: text and figures rendered by a template that escapes every value."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tlopt.analysis.cost import NOTHING, Cost
from tlopt.analysis.explain.explanation import COLUMNS
from tlopt.analysis.format import (
    budget_words,
    condition_words,
    describe_all,
    dimension_words,
    drop_sentence,
    gain_sentences,
    spread_words,
)
from tlopt.analysis.front import (
    confirmed_front_sentence,
    cost_cells,
    front_sentence,
    objective_words,
    shown_costs,
)
from tlopt.analysis.importance import Share
from tlopt.analysis.network_stages import network_rows, network_stages
from tlopt.analysis.prunings import prune_sentence
from tlopt.insight.record import Fit
from tlopt.plots.colours import DARK, LIGHT
from tlopt.reports import figures, headline, wrong
from tlopt.reports.data import Report
from tlopt.reports.svg import with_own_ids
from tlopt.spec.dimensions import Fixed
from tlopt.spec.objectives import COST_TITLES, TITLES, percent_words, value_words
from tlopt.spec.outcome import Outcome
from tlopt.spec.search_keys import LINEAR_KEYS, RULES
from tlopt.storage.attributes import TrialRecord, summary_of
from tlopt.system.words import as_sentence, counted, duration_words

TEMPLATE = "report.html.jinja"
_TOP = 10  # trials in the table of the best
_CAUSES_MAX = 8
_CLASSES_MAX = 200
_SYMBOLS_MAX = 300  # characters per cause


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of text; the row with the index `marked` is highlighted.

    Attributes:
        right: right-aligned columns, for numbers.
        long: columns of sentences.
        whole: columns of short lines that are not wrapped.
        names: columns of names given by users, which may be long.
        shares: length of the bar at the end of each row, in [0, 1]; empty: no bars.
        bars: colour of the bars, as its name in the palette.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[str] = frozenset()
    long: frozenset[str] = frozenset()
    marked: int | None = None
    whole: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    shares: tuple[float, ...] = ()
    bars: str = "point"


def page(report: Report) -> str:
    """The HTML page of `report`: self-contained and without scripts."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(
        name=report.study.name,
        objective=TITLES[report.study.objective],
        state=headline.state(report),
        tiles=tuple(headline.tiles(report)),
        headline=tuple(headline.sentences(report)),
        confirmation=_confirmation(report),
        condition=condition_words(report.verdict) if report.verdict else "",
        drops=not report.study.cost_objectives,  # of a front, all points have all seeds
        objectives=objective_words(report.study),
        front=front_sentence(report.study, report.snapshot.trials),
        confirmed_front=confirmed_front_sentence(report.verdict) if report.verdict else "",
        gains=tuple(gain_sentences(report.confirmed)) if report.confirmed else (),
        drop=drop_sentence(report.confirmed) if report.confirmed else "",
        prunings=as_sentence(prune_sentence(report.snapshot)),
        networks=_networks(report),
        wrong=_wrong(report),
        wrong_missing=wrong.missing_sentence(report),
        best=_best_trials(report),
        n_infeasible=report.snapshot.outcomes.get(Outcome.INFEASIBLE, 0),
        config=_config(report),
        figures=_figures(report),
        importance=_importance(report),
        importance_note=report.explanation.importance.note,
        explained=_explained(report),
        explained_note=report.explanation.note,
        next_sentences=report.explanation.sentences if report.explanation.effects else [],
        outcomes=_outcomes(report),
        causes=_causes(report),
        cost=_cost(report),
        setup=tuple(_setup(report)),
        fits=tuple(map(_fit, report.fits)),
        classes=_classes(report),
        space=_space(report),
        study_file=report.file_text,
        light=LIGHT.css,
        dark=DARK.css,
        version=version("tlopt"),
        created=f"{report.created:%Y-%m-%d %H:%M %Z}".rstrip(),
    )


def _networks(report: Report) -> Table | None:
    stages = network_stages(replace(report.snapshot, verdict=report.verdict))
    if not stages:
        return None
    names = tuple(stage.name for stage in stages)
    rows = tuple(network_rows(stages, report.study.objective))
    return Table(columns=("", *names), rows=rows, right=frozenset(names))


def _confirmation(report: Report) -> Table | None:
    verdict = report.verdict
    if verdict is None:
        return None
    rows = []
    points = describe_all([row.point for row in verdict.rows])
    for row, point in zip(verdict.rows, points, strict=True):
        val, test = (
            spread_words(row.spread(verdict.objective, split=split), verdict.objective)
            for split in ("val", "test")
        )
        costs = cost_cells(row.inference_cost, verdict.cost_names)
        rows.append((row.label, val, test, str(len(row.val)), *costs, point))
    numbers = ("validation", "test", "runs", *(COST_TITLES[name] for name in verdict.cost_names))
    return Table(
        columns=("candidate", *numbers, "point"),
        rows=tuple(rows),
        right=frozenset(numbers),
        whole=frozenset({"point"}),
        marked=0 if verdict.finished and verdict.chosen.val else None,
    )


def _wrong(report: Report) -> dict[str, Any] | None:
    shown = wrong.wrong(report)
    if shown is None:
        return None
    classes = ("class", "images", "right", "predicted as it", "recall", "precision")
    pairs = ("true class", "predicted", "images", "of the class")
    return {
        "shown": shown,
        "classes": Table(
            columns=classes, rows=shown.classes, right=frozenset(classes[1:]), names=frozenset(classes[:1])
        ),
        "pairs": _barred(
            pairs,
            shown.pairs,
            shown.pair_sizes,
            text=frozenset(pairs[:2]),
            bars="line",
            names=frozenset(pairs[:2]),
        ),
        "figures": [
            {"svg": Markup(with_own_ids(svg, f"wrong{index}")), "caption": caption}
            for index, (svg, caption) in enumerate(shown.figures)
        ],
    }


def _best_trials(report: Report) -> Table:
    study = report.study
    keys = ["backbone"] if len(study.model.backbones) > 1 else []
    keys += [key for key, dimension in study.search.items() if not isinstance(dimension, Fixed)]
    costs = shown_costs(study, report.snapshot.trials)
    rows = [
        (
            f"{trial.number}" + (f" ({trial.label})" if trial.label else ""),
            value_words(trial.value or 0.0, study.objective),
            str((trial.last_epoch or 0) + 1),
            *cost_cells(trial.inference_cost, costs),
            *(_cell(trial, key) for key in keys),
        )
        for trial in report.ranked[:_TOP]
    ]
    columns = ("trial", "validation", "epochs", *(COST_TITLES[cost] for cost in costs), *keys)
    chosen = None if report.confirmed is None else report.confirmed.chosen
    shown = report.ranked[:_TOP]
    marked = (i for i, t in enumerate(shown) if chosen and chosen.label in (t.label, f"trial {t.number}"))
    return Table(
        columns=columns,
        rows=tuple(rows),
        right=frozenset({*columns} - {"trial", "backbone"}),
        marked=next(marked, None),
    )


def _cell(trial: TrialRecord, key: str) -> str:
    """The value of a key in the trial's point; "—" where the key has no effect on its linear classifier."""
    if trial.point and not trial.is_network and key not in ("backbone", *LINEAR_KEYS):
        return "—"
    return _short((trial.point or {}).get(key, ""))


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _config(report: Report) -> tuple[str, str] | None:
    """The label of the best point and its study file."""
    if report.best is None:
        return None
    return report.best.label, report.best.config(report.study)


def _figures(report: Report) -> dict[str, list[dict[str, str]]]:
    """The figures by section, with ids that are unique on the page."""
    return {
        section: [
            # safe as markup: matplotlib escapes text in the figures that we draw
            {"svg": Markup(with_own_ids(shown.svg, f"{section}{index}")), "caption": shown.caption}
            for index, shown in enumerate(drawn)
        ]
        for section, drawn in figures.sections(report).items()
    }


def _importance(report: Report) -> Table | None:
    shares = report.explanation.importance.shares
    if not shares:
        return None
    rows = [
        (
            row.key,
            _percent(row.share),
            f"{_percent(row.low)} to {_percent(row.high)}",
            _percent(row.chance),
            _standing(row),
        )
        for row in shares
    ]
    return _barred(
        ("key", "share", "95 % interval", "by chance", "evidence"),
        rows,
        [row.share for row in shares],
        text=frozenset({"evidence"}),
    )


def _explained(report: Report) -> Table | None:
    """A row for each key: its effect alone, and its next range."""
    rows = report.explanation.table()
    if not rows:
        return None
    return Table(
        columns=COLUMNS, rows=tuple(rows), right=frozenset(COLUMNS[1:4]), long=frozenset(COLUMNS[5:])
    )


def _standing(row: Share) -> str:
    return "stands out" if row.stands_out else "may be chance"


def _percent(share: float) -> str:
    return "over 100 %" if share > 1 else percent_words(share)


def _barred(
    columns: Sequence[str],
    rows: Iterable[tuple[str, ...]],
    sizes: Sequence[float],
    *,
    text: frozenset[str] = frozenset(),
    bars: str = "point",
    names: frozenset[str] = frozenset(),
) -> Table:
    """A table with a bar per row, the largest with full length; `text` names columns that are not numbers."""
    largest = max(sizes, default=0) or 1
    return Table(
        columns=tuple(columns),
        rows=tuple(rows),
        right=frozenset(columns[1:]) - text,
        shares=tuple(size / largest for size in sizes),
        bars=bars,
        names=names,
    )


def _outcomes(report: Report) -> Table:
    counts = report.snapshot.outcomes
    total = sum(counts.values()) or 1
    rows = [(name.words, str(n), percent_words(n / total)) for name, n in counts.items()]
    return _barred(("outcome", "trials", "share"), rows, [float(n) for n in counts.values()])


def _causes(report: Report) -> list[str]:
    lines = []
    for row in report.causes[:_CAUSES_MAX]:
        cause = row.cause if len(row.cause) <= _SYMBOLS_MAX else row.cause[: _SYMBOLS_MAX - 1] + "…"
        lines.append(f"{row.outcome.words}, {len(row.numbers)} ({row.trials}): {cause}")
    more = len(report.causes) - _CAUSES_MAX
    return (
        [*lines, f"and {counted(more, 'other cause')}: tlopt status --json lists all"] if more > 0 else lines
    )


def _cost(report: Report) -> Table:
    def row(name: str, cost: Cost) -> tuple[str, ...]:
        processor = "—" if cost.processor_seconds is None else duration_words(cost.processor_seconds)
        return (
            name.replace("_", " "),
            f"{cost.n:,}",
            f"{cost.epochs:,}",
            processor,
            duration_words(cost.seconds),
        )

    rows = [row(name, cost) for name, cost in report.spent]
    rows.append(row("together", sum((cost for _, cost in report.spent), NOTHING)))
    columns = ("spent on", "runs", "epochs", "processor time", "work")
    return Table(columns=columns, rows=tuple(rows), right=frozenset(columns[1:]), marked=len(rows) - 1)


def _fit(fit: Fit) -> dict[str, Any]:
    """The fit of one network by block, with the values of the whole network and the warnings."""
    columns = fit.block_columns
    headings = tuple(column.heading for column in columns)
    rows = tuple(
        (str(depth), row.name, *(column.cell(row.values.get(column.name)) for column in columns))
        for depth, row in enumerate(fit.blocks, 1)
    )
    values = fit.network.values
    single = [f"{c.heading}: {c.cell(values[c.name])}" for c in fit.columns if c not in columns]
    return {
        "title": f"{fit.backbone} ({fit.weights}), {fit.resolution} pixels,"
        f" {counted(fit.n_images, 'training image')}",
        "table": Table(
            columns=("block", "name", *headings), rows=rows, right=frozenset({"block", *headings})
        ),
        "notes": (*single, *([fit.source.sentence] if fit.source else []), *fit.warnings),
    }


def _setup(report: Report) -> Iterator[tuple[str, str]]:
    study, images = report.study, report.images
    yield "images from", study.data.source
    if images:
        splits = f", in each of {images['n_splits']} splits" if images["n_splits"] > 1 else ""
        yield (
            "images",
            f"{images['n_train']:,} to train and {images['n_val']:,} to validate{splits};"
            f" {images['n_test']:,} held out for the test",
        )
        yield "classes", f"{images['n_classes']:,}"
    else:
        yield "images", "numbers and classes were not recorded when the study began"
    yield "fingerprint of the images", report.fingerprints["data"] or "—"
    yield "backbone" + ("s" if len(study.model.backbones) > 1 else ""), ", ".join(study.model.backbones)
    yield "weights", f"{study.model.weights} (digest {report.fingerprints['weights'] or '—'})"
    yield "objective", f"{TITLES[study.objective]} on validation, after the last epoch; {study.direction}"
    if study.cost_objectives:
        costs = (f"{COST_TITLES[name]}; minimize" for name in study.cost_objectives)
        yield "further objectives", ", ".join(costs)
    yield "budget", budget_words(study)
    if report.snapshot.warm_start is not None:
        yield "warm start", summary_of(report.snapshot.warm_start)
    yield "sampler and pruner", f"{study.sampler.kind}, {study.pruner.kind}"
    yield "seed", str(study.seed)
    yield "digest of the study", study.digest


def _classes(report: Report) -> str:
    names: Sequence[str] = report.images.get("class_names", ())
    more = int(report.images.get("n_classes", len(names))) - len(names[:_CLASSES_MAX])
    return ", ".join(names[:_CLASSES_MAX]) + (f" and {more:,} more" if more > 0 else "")


def _space(report: Report) -> Table:
    rows = [
        (key, dimension_words(dimension), RULES[key].meaning)
        for key, dimension in report.study.search.items()
    ]
    if len(report.study.model.backbones) > 1:
        rows.insert(0, ("backbone", dimension_words(report.study.model.backbone), "the pretrained network"))
    return Table(columns=("key", "range", "meaning"), rows=tuple(rows), long=frozenset({"meaning"}))
