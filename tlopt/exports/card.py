"""The model card of an export in Markdown: data, choice, errors, use and limits of the network."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from tlopt.analysis import mistakes
from tlopt.analysis.cost import Cost
from tlopt.analysis.format import (
    condition_words,
    cost_words,
    gain_sentences,
    spread_words,
    structure_words,
)
from tlopt.compact.cost import InferenceCost
from tlopt.confirmation.combined import Combined
from tlopt.confirmation.predictions import Predictions
from tlopt.confirmation.verdict import Confirmed, Verdict
from tlopt.exports import combined_card
from tlopt.exports.read import Export, plain_torch_code, preprocessing_words, whole_cost
from tlopt.model.build import n_blocks
from tlopt.plots.confused import most_confused
from tlopt.spec import Study
from tlopt.spec.objectives import TITLES, cost, direction_of, percent_words, value_words
from tlopt.spec.search_keys import LINEAR_KEYS, RULES, Depth
from tlopt.system.words import counted, markdown_escaped

_CLASSES_SHOWN_MAX = 40
_PAIRS_MAX = 5
MISTAKES = "mistakes.csv"  # of an export


@dataclass(frozen=True, kw_only=True)
class DatasetSummary:
    """The images of a study."""

    class_names: tuple[str, ...]  # in the order of the logits
    n_search: int  # training and validation
    n_test: int
    fingerprint: str  # 16 hex digits


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """The pretrained weights of the transferred blocks, and the pixel statistics that they expect."""

    label: str
    digest: str
    mean: tuple[float, float, float]  # of pixels in [0, 1]
    std: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """The run whose network is exported."""

    seed: int
    images: str  # "training images" or "training and validation images"
    train_loss: tuple[float, ...]  # one per epoch
    val: Mapping[str, tuple[float, ...]]  # metrics by name, one value per epoch; may be empty
    confusion: NDArray[np.int64] | None  # on validation: counts, true class in rows; None without it

    @property
    def has_curves(self) -> bool:
        """Whether there is more than one epoch to draw; a linear classifier has one."""
        return len(self.train_loss) > 1


@dataclass(frozen=True, kw_only=True)
class Spend:
    """The cost of search and confirmation, over all workers."""

    trials: Mapping[str, int]  # number by outcome; empty for a config that was not searched for
    search: Cost
    confirmation: Cost
    n_carried: int = 0  # trials carried over from an earlier study, beside `trials`


@dataclass(frozen=True, kw_only=True, eq=False)
class ExportContents:
    """Everything known about the chosen point of a finished study."""

    study: Study
    study_text: str
    verdict: Verdict
    images: DatasetSummary
    pretrained: Pretrained
    trained: Trained
    spend: Spend
    versions: Mapping[str, str]  # by package
    created: datetime
    predictions: Predictions | None = None  # of the exported network; None if not recorded
    combined: Combined | None = None  # None: the network is that of one run


def model_card(contents: ExportContents, export: Export, inference: InferenceCost) -> str:
    """The Markdown text of the card."""
    sections = {
        "": _opening(contents, export, inference),
        "Data": _data(contents),
        "How it was combined": _combined(contents),
        "How it was chosen": how_chosen(contents),
        "What it gets wrong": _wrong(contents.predictions),
        "The chosen point": _point(contents.verdict.chosen),
        "Use": usage(export),
        "Limits": _limits(contents),
        "Reproduction": _reproduction(contents),
    }
    parts = []
    for title, found in sections.items():
        if not (lines := list(found)):
            continue
        parts += ([f"## {title}", ""] if title else []) + [*lines, ""]
    return "\n".join(parts).rstrip() + "\n"


def _opening(contents: ExportContents, export: Export, inference: InferenceCost) -> Iterator[str]:
    verdict = contents.verdict
    yield f"# {contents.study.name}: {len(export.class_names)} classes with {export.backbone}"
    yield ""
    start = "from scratch" if export.weights_label == "none" else f"from the weights {export.weights_label}"
    yield (
        f"An image classifier for {len(export.class_names)} classes: {_network(contents, export)}, trained"
        f" {start}, at {export.resolution} x {export.resolution} pixels. It has {inference.words}."
        f"{_structure(export, inference)} Written by tlopt."
    )
    yield ""
    yield _headline(contents)
    yield ""
    yield from _origin(contents)
    if contents.trained.confusion is not None:
        yield f"![{_confusion_alt(contents.trained.confusion, export.class_names)}](confusion.png)"
    if contents.trained.has_curves:
        yield f"![{_curves_alt(contents.trained, verdict.objective)}](learning_curves.png)"


def _network(contents: ExportContents, export: Export) -> str:
    found = contents.combined
    return f"the network {export.backbone}" if found is None else combined_card.network_words(found)


def _origin(contents: ExportContents) -> Iterator[str]:
    """Which run the network is from; a combined one has a section on its runs."""
    if contents.combined is not None:
        return
    if contents.trained.seed in contents.verdict.chosen.seeds:
        yield f"The network here is the one of seed {contents.trained.seed}."
    else:
        yield (
            f"The network here was trained once more, on the {contents.trained.images}; the numbers are those"
            " of the networks before it."
        )
    yield ""


def _combined(contents: ExportContents) -> Iterator[str]:
    if contents.combined is not None:
        yield from combined_card.made_of(contents.combined, contents.verdict)


def _structure(export: Export, inference: InferenceCost) -> str:
    """What a shortened network consists of and saves; "" for a whole one, or for an ensemble."""
    if not export.point.is_shortened or export.members:
        return ""
    n, whole = n_blocks(export.backbone), whole_cost(export)
    shares = (
        percent_words(here / there)
        for here, there in (
            (inference.parameters, whole.parameters),
            (inference.multiply_adds, whole.multiply_adds),
        )
    )
    parameters, multiply_adds = shares
    return (
        f" It uses {structure_words(export.point)} of the backbone's {n}: {parameters} of the parameters and"
        f" {multiply_adds} of the multiply-adds of the whole network with the same head."
    )


def _confusion_alt(counts: NDArray[np.int64], class_names: Sequence[str]) -> str:
    """Alternative text for the confusion matrix."""
    n, n_wrong = int(counts.sum()), int(counts.sum() - counts.trace())
    if not n_wrong:
        return f"All {n:,} validation images are predicted correctly."
    (most,) = most_confused(counts, 1)
    pair = f"{markdown_escaped(class_names[most.true])} as {markdown_escaped(class_names[most.predicted])}"
    return (
        f"{n_wrong:,} of {n:,} validation images are predicted wrongly ({percent_words(n_wrong / n)}),"
        f" most often {pair}: {most.n:,}, {percent_words(most.share)} of the class."
    )


def _curves_alt(trained: Trained, objective: str) -> str:
    """Alternative text for the learning curves."""
    loss, values = trained.train_loss, trained.val.get(objective, ())
    first, last = (value_words(each, "log_loss") for each in (loss[0], loss[-1]))
    losses = f"Over {counted(len(loss), 'epoch')} the training loss goes from {first} to {last}"
    if not values:
        return f"{losses}."
    direction = direction_of(objective)
    best = min(range(len(values)), key=lambda epoch: cost(values[epoch], direction))
    ends, top = (value_words(value, objective) for value in (values[-1], values[best]))
    return (
        f"{losses}; validation {TITLES[objective]} ends at {ends}, its best is {top} after epoch {best + 1}."
    )


def _headline(contents: ExportContents) -> str:
    verdict = contents.verdict
    if contents.combined is not None:
        return combined_card.headline(contents.combined, verdict, contents.images.n_test)
    title = TITLES[verdict.objective]
    test = verdict.chosen.spread(verdict.objective, split="test")
    if test is not None:
        return (
            f"Held-out test images: {title} **{spread_words(test, verdict.objective)}** (mean ± standard"
            f" deviation over {counted(test.n, 'seed')}, {counted(contents.images.n_test, 'image')})."
        )
    val = verdict.chosen.spread(verdict.objective)
    if val is None:
        return "This network was trained on all images; it has no validation or test result."
    return (
        f"The test images were not used. Validation {title} **{spread_words(val, verdict.objective)}**; the"
        " point was selected by this number, which is therefore optimistic."
    )


def _data(contents: ExportContents) -> Iterator[str]:
    images, source = contents.images, contents.study.data.source
    cells = [markdown_escaped(name) for name in images.class_names[:_CLASSES_SHOWN_MAX]]
    more = len(images.class_names) - len(cells)
    yield f"- source: {markdown_escaped(source)}"
    yield f"- images: {images.n_search} to train and validate, {images.n_test} held out for the test"
    yield f"- classes ({len(images.class_names)}): {', '.join(cells)}" + (
        f" and {more} more in classes.txt" if more else ""
    )
    yield f"- fingerprint: `{images.fingerprint}`"


def how_chosen(contents: ExportContents) -> Iterator[str]:
    """The lines of the card's section on the search, the confirmation and the gains."""
    verdict, spend = contents.verdict, contents.spend
    if not verdict.chosen.val:
        yield "This config was not searched for: there are no other candidates, and no gain was measured."
        return
    seeds = counted(len(verdict.chosen.seeds), "seed")
    condition = condition_words(verdict)
    again = (
        "and the defaults, which need no search, were then trained again: the chosen point and the defaults"
        f" with {seeds} each. The mean {TITLES[verdict.objective]} on validation decided{condition}."
        f" {_test_readings(verdict.test_readings)}"
    )
    if spend.trials:
        outcomes = ", ".join(f"{n} {outcome.replace('_', ' ')}" for outcome, n in spend.trials.items())
        earlier = (
            f" and had {counted(spend.n_carried, 'trial')} of an earlier study, whose cost is not included"
            if spend.n_carried
            else ""
        )
        yield (
            f"The search ran {counted(sum(spend.trials.values()), 'trial')} ({outcomes}){earlier}."
            f" Its best points {again}"
        )
        yield ""
        yield f"- search: {cost_words(spend.search)}"
        yield f"- confirmation: {cost_words(spend.confirmation)}"
        yield f"- total: {cost_words(spend.search + spend.confirmation)}"
    else:
        yield (
            "The config comes from an earlier export; its card states the cost of the search. The best points"
            f" {again}"
        )
    yield ""
    yield from _candidates(verdict)
    yield ""
    yield "Mean ± standard deviation over n runs with different seeds; → marks the chosen point."
    yield ""
    yield from (f"- {sentence}" for sentence in gain_sentences(verdict))


def _candidates(verdict: Verdict) -> Iterator[str]:
    title = TITLES[verdict.objective]
    yield f"| candidate | n | validation {title} | test {title} |"
    yield "| --- | --: | --: | --: |"
    for row in verdict.rows:
        mark = "→ " if row is verdict.chosen else ""
        val, test = (row.spread(verdict.objective, split=split) for split in ("val", "test"))
        cells = " | ".join(spread_words(spread, verdict.objective) for spread in (val, test))
        yield f"| {mark}{row.label} | {len(row.val)} | {cells} |"


def _wrong(predictions: Predictions | None) -> Iterator[str]:
    """Weakest classes, confused pairs and confidence of the network; nothing without predictions."""
    if predictions is None:
        return
    n, split = len(predictions.labels), {"test": "test", "val": "validation"}[predictions.split]
    n_wrong = int((predictions.labels != predictions.predicted).sum())
    if n_wrong:
        images = counted(n, f"{split} image")
        yield f"The network here predicts {n_wrong} of {images} wrongly; `{MISTAKES}` lists them."
    else:
        yield f"The network here predicts all {n} {split} images correctly."
    yield ""
    yield from _weakest_classes(predictions)
    if pairs := mistakes.confused_pairs(predictions, _PAIRS_MAX):
        yield ""
        yield "Most confused pairs:"
        yield ""
        yield from (
            f"- {markdown_escaped(pair.true)} as {markdown_escaped(pair.predicted)}:"
            f" {counted(pair.n, 'image')}, {percent_words(pair.share)} of the class"
            for pair in pairs
        )
    seen = mistakes.calibration(predictions)
    yield ""
    confidence, right = percent_words(seen.confidence), percent_words(seen.accuracy)
    yield (
        f"Its mean probability of the predicted class is {confidence}, and {right} are right (expected"
        f" calibration error {100 * seen.ece:.1f} points)."
    )


def _weakest_classes(predictions: Predictions) -> Iterator[str]:
    """A table of the classes with the lowest recall, lowest first."""
    known = [row for row in mistakes.class_rates(predictions) if row.recall is not None]
    rows = sorted(known, key=lambda row: row.recall or 0.0)[:_CLASSES_SHOWN_MAX]
    yield "| class | images | recall | precision |"
    yield "| --- | --: | --: | --: |"
    for row in rows:
        cells = " | ".join(
            "—" if rate is None else percent_words(rate) for rate in (row.recall, row.precision)
        )
        yield f"| {markdown_escaped(row.name)} | {row.n} | {cells} |"
    if len(known) > len(rows):
        yield ""
        yield f"Recall is higher for {counted(len(known) - len(rows), 'other class')}."


def _point(chosen: Confirmed) -> Iterator[str]:
    n = n_blocks(chosen.point.backbone)
    yield f"`config.toml` has the exact values of {chosen.label}."
    yield ""
    yield "| key | value | meaning |"
    yield "| --- | --: | --- |"
    for name, rule in RULES.items():
        if chosen.point.is_linear and name not in LINEAR_KEYS:
            continue
        value = (
            n if name == "backbone_depth" and not chosen.point.is_shortened else getattr(chosen.point, name)
        )
        cells = f"{value:.4g}" if isinstance(value, float) else str(value)
        cells += f" of {n}" if isinstance(rule, Depth) else ""
        yield f"| `{name}` | {cells} | {rule.meaning} |"


def usage(export: Export) -> Iterator[str]:
    """How to run an export, with tlopt and without it, as Markdown."""
    yield "With tlopt, in this folder, for the images in `IMAGES`:"
    yield ""
    yield "```console"
    yield "tlopt predict . IMAGES"
    yield "```"
    yield ""
    yield "Without it, in this folder:"
    yield ""
    yield "```python"
    yield plain_torch_code(export)
    yield "```"
    yield ""
    yield "Preprocessing of an image file:"
    yield ""
    for index, words in enumerate(preprocessing_words(export), 1):
        yield f"{index}. {words}"
    yield ""
    yield f"Mean {list(export.mean)}, std {list(export.std)}, of pixels in [0, 1]."


def _limits(contents: ExportContents) -> Iterator[str]:
    n_seeds = len(contents.verdict.chosen.seeds)
    yield "- It predicts one of its classes for every image, even with confidence for images of other things."
    if (
        contents.verdict.chosen.point.classifier != "svm"
    ):  # whose margins become probabilities by a temperature
        yield "- Probabilities are not calibrated."
    yield "- The numbers apply to images like those of the source; other cameras or places were not tested."
    if contents.combined is None:
        n = counted(n_seeds, "seed")
        yield f"- {n} give a rough spread; it does not cover the choice of test images."
    else:
        yield "- It was measured once, so its numbers have no spread over seeds."
        yield "- Whoever compares it with other networks by test images selects by them: use validation."
    yield "- The pretrained weights and the images have licences of their own."


def _reproduction(contents: ExportContents) -> Iterator[str]:
    study, trained = contents.study, contents.trained
    one = "" if contents.combined is None else "one network of the chosen point "
    yield (
        f"To train {one}on training and validation images together, with the images at their old path, run"
        " here:"
    )
    yield ""
    yield "```console"
    yield "tlopt train config.toml ../trained"
    yield "```"
    yield ""
    if contents.combined is None:
        yield f"- this network: seed {trained.seed}, trained on the {trained.images}"
    else:
        seeds = ", ".join(str(member.seed) for member in contents.combined.members)
        yield f"- its networks: seeds {seeds}, trained on the {trained.images}"
    yield f"- study: {study.name}, digest `{study.digest}`, seed {study.seed}; its file is `study.toml`"
    pretrained = contents.pretrained
    yield f"- pretrained weights: {markdown_escaped(pretrained.label)}, digest `{pretrained.digest}`"
    yield f"- versions: {', '.join(f'{name} {version}' for name, version in contents.versions.items())}"
    yield f"- written: {contents.created:%Y-%m-%d %H:%M %Z}".rstrip()


def _test_readings(n: int) -> str:
    if n == 0:
        return "The test images were not used."
    often = "once" if n == 1 else f"{n} times"
    return f"The test images were evaluated {often}, after the choice."
