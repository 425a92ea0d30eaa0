"""What a model card says about a soup or an ensemble."""

from collections.abc import Iterator

from tlopt.analysis.format import spread_words
from tlopt.confirmation.combined import Combined
from tlopt.confirmation.verdict import SplitName, Verdict
from tlopt.spec.objectives import TITLES, value_words
from tlopt.system.words import counted

_OF = {"soup": "weights", "ensemble": "probabilities"}


def network_words(combined: Combined) -> str:
    """As in "the mean of the weights of 3 networks resnet18"."""
    backbones = dict.fromkeys(member.point.backbone for member in combined.members)
    if combined.is_single:
        return f"the network {combined.members[0].point.backbone} of one run"
    n = counted(len(combined.members), "network")
    return f"the mean of the {_OF[combined.kind]} of {n} {' and '.join(backbones)}"


def headline(combined: Combined, verdict: Verdict, n_test: int) -> str:
    """The result on test images, or else on validation, beside that of single networks."""
    title, objective = TITLES[verdict.objective], verdict.objective
    if combined.test:
        return (
            f"Held-out test images: {title} **{value_words(combined.test[objective], objective)}** (one"
            f" measurement, {counted(n_test, 'image')}); {_alone(verdict, 'test')}."
        )
    if combined.val:
        return (
            f"The test images were not used. Validation {title}"
            f" **{value_words(combined.val[objective], objective)}**, which is optimistic, because these"
            f" images decided; {_alone(verdict, 'val')}."
        )
    return "It has no validation or test result."


def _alone(verdict: Verdict, split: SplitName) -> str:
    spread = verdict.chosen.spread(verdict.objective, split=split)
    if spread is None:
        return "single networks were not measured on them"
    single = spread_words(spread, verdict.objective)
    return f"single networks of {verdict.chosen.label}: {single} over {counted(spread.n, 'seed')}"


def made_of(combined: Combined, verdict: Verdict) -> Iterator[str]:
    """The runs that it is made of, and how they were chosen."""
    if combined.kind == "soup":
        yield from _soup(combined, verdict)
    else:
        yield from _ensemble(combined, verdict)
    yield ""
    title, objective = TITLES[verdict.objective], verdict.objective
    if combined.val:
        yield f"Validation {title} of the whole: {value_words(combined.val[objective], objective)}."
    else:
        yield (
            "There is no validation result of the whole: its networks were trained on different splits, so"
            " that each validation image has trained one of them."
        )


def _soup(combined: Combined, verdict: Verdict) -> Iterator[str]:
    title = TITLES[verdict.objective]
    yield (
        "One network, whose weights are the mean of those of the runs marked → (a"
        " [model soup](https://arxiv.org/abs/2203.05482)). It began with the network that is exported alone;"
        f" the others were tried in the order below, and each stayed if validation {title} of the mean did"
        " not fall. These images decided, so that number is optimistic. Batch-norm statistics were measured"
        " anew on training images where training had changed them."
    )
    if combined.is_single:
        yield ""
        yield "No mean was as good on validation, so this is the network of the first run."
    yield ""
    yield f"| run | validation {title} alone | of the mean with it |"
    yield "| --- | --: | --: |"
    for each in combined.additions:
        mark = "→ " if each.kept else ""
        cells = (value_words(value, verdict.objective) for value in (each.member.value, each.value))
        yield f"| {mark}{each.member.words} | {' | '.join(cells)} |"
    if combined.left_out:
        yield ""
        yield "Left out, because a mean with it would be no network:"
        yield ""
        yield from (f"- {line}" for line in combined.left_out)


def _ensemble(combined: Combined, verdict: Verdict) -> Iterator[str]:
    title = TITLES[verdict.objective]
    yield (
        "All of these networks classify an image, and the mean of their probabilities is the answer; its time"
        " and size are those of all of them."
    )
    yield ""
    yield f"| run | validation {title} alone |"
    yield "| --- | --: |"
    for member in combined.members:
        yield f"| {member.words} | {value_words(member.value, verdict.objective)} |"
