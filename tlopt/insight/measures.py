"""The table of measures of fit, with the conditions under which each is valid."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tlopt.errors import SpecError
from tlopt.insight.evidence import logme
from tlopt.insight.labelled_features import LabelledFeatures
from tlopt.insight.probes import knn_accuracy, linear_probe_accuracy
from tlopt.insight.record import COLUMNS, Column
from tlopt.insight.scatter import (
    PARC_COMPONENTS,
    gbc,
    parc,
    parc_images,
    regularised_h_score,
    transrate,
)
from tlopt.insight.source_classes import emd_similarity, highest_similarity, leep, nce
from tlopt.system.words import counted

FEW_FEATURES = 8
HIGHEST_MIN = 0.7  # similarity; about 16 images a class in both sets
FEW_A_CLASS = 5  # below this number of images, a class's mean and variance are mostly noise

Condition = Callable[[LabelledFeatures], str]  # why a value should not be trusted, or ""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One measure; a higher value is a better fit.

    Attributes:
        column: name, title and unit.
        compute: computes the value for a sample.
        range_checks: checks whether a value can be trusted.
        by_block: False if it needs the network's own classifier and so has one value per network.
        needs_source: whether it needs images of the source; if so, it is computed where they are given.
    """

    column: Column
    compute: Callable[[LabelledFeatures], float]
    range_checks: tuple[Condition, ...] = ()
    by_block: bool = True
    needs_source: bool = False

    @property
    def name(self) -> str:
        """The name in options and JSON."""
        return self.column.name

    def value(self, sample: LabelledFeatures) -> float | None:
        """The value for `sample`, or None if it is not defined."""
        if undefined(sample) or self._lacks_input(sample):
            return None
        found = self.compute(sample)
        return found if math.isfinite(found) else None

    def _lacks_input(self, sample: LabelledFeatures) -> bool:
        by_images = self.needs_source and sample.source_means is None
        return by_images or (not self.by_block and sample.source_probabilities is None)

    def warnings(self, sample: LabelledFeatures) -> tuple[str, ...]:
        """The reasons not to trust the value for `sample`, as clauses without full stop; empty if none."""
        if reason := undefined(sample):
            return (reason,)
        return tuple(filter(None, (check(sample) for check in self.range_checks)))


def undefined(sample: LabelledFeatures) -> str:
    """The reason why no measure is defined for `sample`, or ""."""
    if len(sample.class_counts) < 2:
        return "one class: there is nothing to tell apart"
    if not sample.is_finite:
        return "the network's output is infinite or NaN for some images"
    if sample.is_constant:
        return "all images have the same features"
    return ""


def single_images(sample: LabelledFeatures) -> str:
    """A warning if a class has one image."""
    n = int((sample.class_counts == 1).sum())
    return f"{n} of {len(sample.class_counts)} classes have one image" if n else ""


def few_a_class(sample: LabelledFeatures) -> str:
    """A warning if a class has fewer than `FEW_A_CLASS` images."""
    fewest = int(sample.class_counts.min())
    return f"a class has {fewest} of at least {FEW_A_CLASS} images" if fewest < FEW_A_CLASS else ""


def more_features_than_images(sample: LabelledFeatures) -> str:
    """A warning if a class has no more images than features: its coding rate is then too low."""
    d, fewest = sample.features.shape[1], int(sample.class_counts.min())
    images = counted(fewest, "image")
    return f"{d} features, but a class has {images}: noise scores well, too" if d >= fewest else ""


def few_features(sample: LabelledFeatures) -> str:
    """A warning if distances are correlations over few features, or principal components."""
    d = sample.features.shape[1]
    if d > PARC_COMPONENTS:
        d = min(d, sample.n_images - 1)
    return f"a correlation over {counted(d, 'feature')}" if d < FEW_FEATURES else ""


def all_of_other_classes(sample: LabelledFeatures) -> str:
    """A warning if no two of the images that PARC uses are of one class."""
    used = sample.labels[parc_images(sample.labels)]
    return f"no two of the {len(used)} images it uses are of one class" if len(set(used)) == len(used) else ""


def few_for_source_classes(sample: LabelledFeatures) -> str:
    """A warning if there are fewer images than source classes."""
    assert sample.source_probabilities is not None
    n, source = sample.source_probabilities.shape
    return f"{n} images for {source} source classes" if n < source else ""


def means_are_noisy(sample: LabelledFeatures) -> str:
    """A warning if class means of so few images are far apart even where the images are alike."""
    assert sample.source_means is not None
    ours, theirs = float(sample.class_counts.mean()), float(sample.source_means.counts.mean())
    highest = highest_similarity(ours, theirs)
    if highest >= HIGHEST_MIN:
        return ""
    return (
        f"{ours:.3g} images in a class and {theirs:.3g} in one of the source:"
        f" even two samples of one set would have about {highest:.2f}"
    )


def constant_source(sample: LabelledFeatures) -> str:
    """A warning if all images of the source have the same features."""
    assert sample.source_means is not None
    return "all images of the source have the same features" if sample.source_means.spread == 0 else ""


def _emd(sample: LabelledFeatures) -> float:
    assert sample.source_means is not None
    return emd_similarity(sample.features, sample.labels, sample.source_means)


def _leep(sample: LabelledFeatures) -> float:
    assert sample.source_probabilities is not None
    return leep(sample.source_probabilities, sample.labels, sample.folds)


def _nce(sample: LabelledFeatures) -> float:
    assert sample.source_probabilities is not None
    return nce(sample.source_probabilities.argmax(axis=1), sample.labels, sample.folds)


_COLUMN = {column.name: column for column in COLUMNS}

MEASURES = (
    Measure(
        column=_COLUMN["linear_probe"],
        compute=lambda s: linear_probe_accuracy(s.features, s.labels, s.folds),
        range_checks=(single_images,),
    ),
    Measure(
        column=_COLUMN["knn"],
        compute=lambda s: knn_accuracy(s.features, s.labels, s.folds),
        range_checks=(few_a_class,),
    ),
    Measure(column=_COLUMN["logme"], compute=lambda s: logme(s.features, s.labels)),
    Measure(
        column=_COLUMN["h_score"],
        compute=lambda s: regularised_h_score(s.features, s.labels),
        range_checks=(single_images,),
    ),
    Measure(
        column=_COLUMN["parc"],
        compute=lambda s: parc(s.features, s.labels),
        range_checks=(few_features, all_of_other_classes),
    ),
    Measure(
        column=_COLUMN["gbc"],
        compute=lambda s: gbc(s.features, s.labels),
        range_checks=(few_a_class,),
    ),
    Measure(
        column=_COLUMN["transrate"],
        compute=lambda s: transrate(s.features, s.labels),
        range_checks=(more_features_than_images, single_images),
    ),
    Measure(
        column=_COLUMN["leep"],
        compute=_leep,
        range_checks=(few_for_source_classes,),
        by_block=False,
    ),
    Measure(column=_COLUMN["nce"], compute=_nce, range_checks=(few_for_source_classes,), by_block=False),
    Measure(
        column=_COLUMN["emd"],
        compute=_emd,
        range_checks=(constant_source, means_are_noisy),
        needs_source=True,
    ),
)
NAMES = tuple(measure.name for measure in MEASURES)


def chosen(names: Sequence[str], *, with_source: bool = False) -> tuple[Measure, ...]:
    """The measures with these names, in this order; if `names` is empty, all that can be computed.

    Args:
        with_source: whether images of the source are given.

    Raises:
        SpecError: a name is unknown, or its measure needs images of the source.
    """
    by_name = {measure.name: measure for measure in MEASURES}
    if unknown := [name for name in names if name not in by_name]:
        raise SpecError(f'--measures: there is no "{unknown[0]}"; there are {", ".join(NAMES)}')
    possible = tuple(measure for measure in MEASURES if with_source or not measure.needs_source)
    wanted = tuple(by_name[name] for name in dict.fromkeys(names)) or possible
    if lacking := [measure.name for measure in wanted if measure not in possible]:
        raise SpecError(f"--measures: {lacking[0]} needs images of the source: name them with --source")
    return wanted
