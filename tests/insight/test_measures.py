"""Every measure on planted features: values computed by hand, noise with D > N, and degenerate samples."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from tlopt.errors import SpecError
from tlopt.insight.evidence import logme, max_log_evidence
from tlopt.insight.labelled_features import (
    LabelledFeatures,
    SourceMeans,
    centred_and_scaled,
    left_singular_vectors,
)
from tlopt.insight.measures import MEASURES, Measure, chosen
from tlopt.insight.probes import INVERSE_STRENGTH, knn_accuracy, linear_probe_accuracy
from tlopt.insight.scatter import (
    coding_rate,
    gbc,
    overlap_of_gaussians,
    parc,
    regularised_h_score,
    transrate,
)
from tlopt.insight.source_classes import emd_similarity, highest_similarity, leep, nce
from tlopt.model.folds import stratified_folds

RNG = np.random.default_rng(0)
BY_BLOCK = [measure for measure in MEASURES if measure.by_block]
OF_CLASSES = [measure for measure in BY_BLOCK if not measure.needs_source]  # of how far apart classes are
SOURCE = SourceMeans.of(RNG.normal(size=(40, 3)), np.arange(40) % 4)


def sample(
    features: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray | None = None,
    source: SourceMeans | None = None,
) -> LabelledFeatures:
    folds = stratified_folds(labels, np.arange(len(labels)))
    return LabelledFeatures(
        features=features,
        labels=labels,
        folds=folds,
        source_probabilities=probabilities,
        source_means=source,
    )


def planted(n: int, d: int, *, classes: int, signal: float, seed: int = 0) -> LabelledFeatures:
    """Class means of size `signal` in unit noise, all classes with n / classes images."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    return sample(rng.normal(size=(n, d)) + signal * rng.normal(size=(classes, d))[labels], labels)


@pytest.mark.parametrize("measure", OF_CLASSES, ids=lambda measure: measure.name)
def test_signal_scores_above_noise(measure: Measure) -> None:
    noise, signal = (planted(100, 20, classes=4, signal=size) for size in (0.0, 2.0))
    below, above = measure.value(noise), measure.value(signal)

    assert below is not None
    assert above is not None
    assert above > below


@pytest.mark.parametrize("name", ["linear_probe", "knn", "logme", "h_score", "parc", "gbc"])
def test_signal_scores_above_noise_with_more_features_than_images(name: str) -> None:
    (measure,) = chosen([name])
    noise, signal = (planted(60, 600, classes=4, signal=size) for size in (0.0, 0.7))

    assert measure.warnings(signal) == ()
    assert (measure.value(signal) or 0.0) > (measure.value(noise) or 0.0)


@pytest.mark.parametrize("measure", BY_BLOCK, ids=lambda measure: measure.name)
def test_unit_and_shift_of_features_do_not_matter(measure: Measure) -> None:
    images = planted(80, 12, classes=4, signal=0.7)
    source = planted(60, 12, classes=3, signal=0.7, seed=1)
    one, other = (
        sample(
            move(images.features), images.labels, source=SourceMeans.of(move(source.features), source.labels)
        )
        for move in (lambda x: x, lambda x: 1000 + 50 * x)
    )

    assert measure.value(other) == pytest.approx(measure.value(one), rel=1e-6)


@pytest.mark.parametrize("unit", [1e-30, 6e-8, 1e30])
@pytest.mark.parametrize("measure", BY_BLOCK, ids=lambda measure: measure.name)
def test_a_very_small_or_large_unit_does_not_matter(measure: Measure, unit: float) -> None:
    images, source = planted(80, 12, classes=4, signal=0.7), planted(60, 12, classes=3, signal=0.7, seed=1)
    one, other = (
        sample(
            factor * images.features,
            images.labels,
            source=SourceMeans.of(factor * source.features, source.labels),
        )
        for factor in (1.0, unit)
    )

    assert measure.value(other) == pytest.approx(measure.value(one), rel=1e-6)


@pytest.mark.parametrize("odd", [np.nan, np.inf])
@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_features_that_are_not_finite_have_no_value_and_say_why(measure: Measure, odd: float) -> None:
    features, labels = RNG.normal(size=(12, 3)), np.arange(12) % 2
    features[4, 1] = odd
    images = sample(features, labels, RNG.dirichlet(np.ones(5), 12), SOURCE)

    assert measure.value(images) is None
    assert measure.warnings(images) == ("the network's output is infinite or NaN for some images",)


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_one_class_and_identical_rows_have_no_value_and_say_why(measure: Measure) -> None:
    probabilities = np.full((6, 3), 1 / 3)
    folds = ((np.arange(3), np.arange(3, 6)), (np.arange(3, 6), np.arange(3)))
    single = LabelledFeatures(
        features=RNG.normal(size=(6, 3)),
        labels=np.zeros(6, int),
        folds=folds,
        source_probabilities=probabilities,
        source_means=SOURCE,
    )
    same = LabelledFeatures(
        features=np.ones((6, 3)),
        labels=np.arange(6) % 2,
        folds=folds,
        source_probabilities=probabilities,
        source_means=SOURCE,
    )

    assert measure.value(single) is None
    assert measure.value(same) is None
    assert measure.warnings(single) == ("one class: there is nothing to tell apart",)
    assert measure.warnings(same) == ("all images have the same features",)


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_a_class_with_one_image_and_a_constant_column_break_nothing(measure: Measure) -> None:
    features = np.hstack([RNG.normal(size=(21, 3)), np.full((21, 1), 7.0)])
    labels = np.array([0] * 10 + [1] * 10 + [2])
    source = SourceMeans.of(features[:6], labels[5:11])
    value = measure.value(sample(features, labels, RNG.dirichlet(np.ones(5), 21), source))

    assert value is not None


def test_the_range_of_each_measure_is_checked() -> None:
    features, labels = RNG.normal(size=(9, 9)), np.array([0] * 4 + [1] * 4 + [2])
    source = SourceMeans.of(features, np.arange(9) % 2)
    few = sample(features, labels, RNG.dirichlet(np.ones(20), 9), source)
    said = {measure.name: measure.warnings(few) for measure in MEASURES}

    assert said == {
        "linear_probe": ("1 of 3 classes have one image",),
        "knn": ("a class has 1 of at least 5 images",),
        "logme": (),
        "h_score": ("1 of 3 classes have one image",),
        "parc": (),
        "gbc": ("a class has 1 of at least 5 images",),
        "transrate": (
            "9 features, but a class has 1 image: noise scores well, too",
            "1 of 3 classes have one image",
        ),
        "leep": ("9 images for 20 source classes",),
        "nce": ("9 images for 20 source classes",),
        "emd": (
            "3 images in a class and 4.5 in one of the source:"
            " even two samples of one set would have about 0.47",
        ),
    }


def test_an_unknown_measure_is_refused_with_those_that_there_are() -> None:
    assert [measure.name for measure in chosen(["gbc", "knn", "gbc"])] == ["gbc", "knn"]
    assert chosen([], with_source=True) == MEASURES
    assert [measure.name for measure in MEASURES if measure not in chosen([])] == ["emd"]
    with pytest.raises(SpecError, match='no "hscore"; there are linear_probe, knn, logme'):
        chosen(["hscore"])
    with pytest.raises(SpecError, match="emd needs images of the source: name them with --source"):
        chosen(["knn", "emd"])


def test_folds_keep_groups_together_and_hold_each_image_out_once() -> None:
    labels = np.arange(60) % 3
    groups = np.arange(60) // 6
    folds = stratified_folds(labels, groups)

    assert sorted(np.concatenate([other for _, other in folds])) == list(range(60))
    for fit, other in folds:
        assert not {groups[i] for i in fit} & {groups[i] for i in other}


def test_probes_with_copies_in_one_group_do_not_know_the_answer() -> None:
    # 30 pairs of equal images with random labels: apart, the nearest neighbour knows the label
    features = np.repeat(RNG.normal(size=(30, 50)), 6, axis=0)
    labels = np.repeat(RNG.integers(0, 2, 30), 6)
    apart = stratified_folds(labels, np.arange(180))
    together = stratified_folds(labels, np.arange(180) // 6)

    assert knn_accuracy(features, labels, apart) > 0.9
    assert knn_accuracy(features, labels, together) < 0.8
    assert linear_probe_accuracy(features, labels, apart) == 1.0
    assert linear_probe_accuracy(features, labels, together) < 0.8


def test_a_probe_that_is_fitted_on_one_class_predicts_it() -> None:
    features, labels = np.array([[0.0], [1.0], [0.1], [1.1]]), np.array([0, 1, 0, 0])
    folds = ((np.array([0, 2]), np.array([1, 3])), (np.array([0, 1]), np.array([2, 3])))

    assert linear_probe_accuracy(features, labels, folds) == 0.5  # 1 and 3 by the constant; 2 right, 3 wrong


@pytest.mark.parametrize(("n", "d", "classes"), [(300, 600, 100), (60, 2048, 10), (200, 300, 2)])
def test_a_probe_is_fitted_to_the_end_whatever_the_number_of_classes(n: int, d: int, classes: int) -> None:
    images = planted(n, d, classes=classes, signal=0.3 if classes > 2 else 0.15)
    right = 0
    for fit, other in images.folds:
        known, unknown = images.features[fit], images.features[other]
        mean, scale = known.mean(axis=0), known.std(axis=0) * np.sqrt(d)
        model = LogisticRegression(C=INVERSE_STRENGTH, max_iter=5000, tol=1e-8)
        model.fit((known - mean) / scale, images.labels[fit])
        right += int((model.predict((unknown - mean) / scale) == images.labels[other]).sum())

    assert right / n > 1.3 / classes  # there is something to find
    assert linear_probe_accuracy(images.features, images.labels, images.folds) == pytest.approx(
        right / n, abs=0.01
    )


@pytest.mark.parametrize("d", [4, 40])
def test_logme_is_the_largest_density_of_a_gaussian_process(d: int) -> None:
    n = 15
    f = RNG.normal(size=(n, d))
    y = (f[:, 0] + 0.5 * RNG.normal(size=n) > 0).astype(float)
    u, s = left_singular_vectors(f)

    def cost(logs: np.ndarray) -> float:
        covariance = np.eye(n) / np.exp(logs[1]) + f @ f.T / np.exp(logs[0])
        return -float(multivariate_normal.logpdf(y, np.zeros(n), covariance))

    starts = [np.array([a, b]) for a in (-2.0, 2.0) for b in (-2.0, 2.0, 6.0)]
    best = min(minimize(cost, start, method="Nelder-Mead", options={"maxiter": 4000}).fun for start in starts)
    assert max_log_evidence(u, s**2, y) == pytest.approx(-best, abs=1e-3)


def test_logme_of_noise_with_more_features_than_images_stays_under_that_of_signal() -> None:
    # the released code says 1.743 for noise and 1.679 for signal at this size
    noise, signal = (planted(500, 700, classes=10, signal=size) for size in (0.0, 0.2))

    assert -0.4 < logme(noise.features, noise.labels) < logme(signal.features, signal.labels) < 0.2


def test_h_score_of_separate_classes_is_their_number_less_one() -> None:
    labels = np.arange(4000) % 4
    features = np.eye(4)[labels] + 1e-3 * RNG.normal(size=(4000, 4))

    assert regularised_h_score(features, labels) == pytest.approx(3.0, abs=0.02)


def test_h_score_of_noise_does_not_saturate() -> None:
    noise = planted(100, 400, classes=10, signal=0.0)

    assert regularised_h_score(noise.features, noise.labels) < 1.0  # without shrinkage it is 9, the maximum


def test_coding_rate_by_hand() -> None:
    features = np.array([[2.0, 0.0], [0.0, 0.0]])

    assert coding_rate(features, eps=0.5) == pytest.approx(0.5 * np.log(1 + 4 / (2 * 0.5)))
    assert coding_rate(features.T @ np.ones((2, 5)), eps=0.5) == pytest.approx(
        0.5 * np.log(1 + 20 / (2 * 0.5))
    )


def test_transrate_weights_classes_by_their_images() -> None:
    # one column: 3 images at +1 and one at -3 scale to +1 and -3 over sqrt(3)
    features, labels = np.array([[1.0], [1.0], [1.0], [-3.0]]), np.array([0, 0, 0, 1])
    rates = [0.5 * np.log(1 + z / 1e-4) for z in (1.0, 1 / 3, 3.0)]

    assert transrate(features, labels) == pytest.approx(rates[0] - 0.75 * rates[1] - 0.25 * rates[2])


def test_overlap_of_gaussians_by_hand() -> None:
    same = overlap_of_gaussians(np.zeros((2, 3)), np.ones((2, 3)))
    apart = overlap_of_gaussians(np.array([[0.0], [2.0]]), np.ones((2, 1)))
    # the published code for one variance a class says 0.894: it leaves the factor 64 out
    wider = overlap_of_gaussians(np.zeros((2, 64)), np.array([[1.0] * 64, [4.0] * 64]))

    assert same == pytest.approx(2.0)
    assert apart == pytest.approx(2 * np.exp(-0.5))
    assert wider == pytest.approx(2 * (2 / 2.5) ** 32)


def test_gbc_is_zero_for_classes_far_apart() -> None:
    far = planted(100, 5, classes=3, signal=100.0)

    assert gbc(far.features, far.labels) == pytest.approx(0.0, abs=1e-9)


def test_parc_is_one_hundred_for_features_that_are_the_labels() -> None:
    labels = np.arange(40) % 8

    assert parc(np.eye(8)[labels], labels) == pytest.approx(100.0)
    assert abs(parc(RNG.normal(size=(900, 40)), np.arange(900) % 3)) < 2


def test_parc_has_the_signs_of_scikit_learns_components() -> None:
    images = planted(60, 80, classes=4, signal=0.5)
    scores = PCA(32, svd_solver="full").fit_transform(images.features)

    # 32 columns are not reduced again
    assert parc(images.features, images.labels) == pytest.approx(parc(scores, images.labels), abs=1e-6)


def test_parc_of_one_feature_has_no_value_and_says_why() -> None:
    (measure,) = chosen(["parc"])
    single = planted(20, 1, classes=2, signal=1.0)

    assert measure.value(single) is None
    assert measure.warnings(single) == ("a correlation over 1 feature",)


def test_parc_of_more_classes_than_it_uses_images_has_no_value_and_says_why() -> None:
    (measure,) = chosen(["parc"])
    features = RNG.normal(size=(1200, 3))
    many = LabelledFeatures(features=features, labels=np.arange(1200) % 600, folds=())

    assert measure.value(many) is None
    assert "no two of the 500 images it uses are of one class" in measure.warnings(many)


def test_parc_of_few_images_warns_of_few_components() -> None:
    (measure,) = chosen(["parc"])
    four = planted(4, 40, classes=2, signal=1.0)

    assert measure.warnings(four) == ("a correlation over 3 features",)


def test_leep_and_nce_by_hand() -> None:
    # two source classes; P(y | z) from soft counts [[0.9 + 0.6, 0.1 + 0.4], [0.2, 0.8]]
    theta = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    labels = np.array([0, 0, 1])
    given = np.array([[1.5 / 1.7, 0.2 / 1.7], [0.5 / 1.3, 0.8 / 1.3]])
    expected = np.mean([np.log(theta[i] @ given[:, labels[i]]) for i in range(3)])

    assert leep(theta, labels) == pytest.approx(expected)
    # source class 0 has labels 0, 0, 1 and source class 1 has label 1
    assert nce(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])) == pytest.approx(
        (2 * np.log(2 / 3) + np.log(1 / 3)) / 4
    )


def test_source_class_measures_of_noise_are_not_above_chance_with_folds() -> None:
    labels = np.arange(200) % 10
    theta = RNG.dirichlet(np.full(1000, 0.02), 200)
    folds = stratified_folds(labels, np.arange(200))
    chance = -np.log(10)

    assert leep(theta, labels) > chance + 0.9  # the published score
    assert nce(theta.argmax(axis=1), labels) > chance + 2
    assert leep(theta, labels, folds) < chance + 0.02
    assert nce(theta.argmax(axis=1), labels, folds) < chance + 0.02


def test_source_class_measures_of_equal_classes_come_near_zero() -> None:
    labels = np.arange(400) % 4
    theta = 0.96 * np.eye(8)[labels] + 0.005
    folds = stratified_folds(labels, np.arange(400))

    assert nce(labels, labels, folds) > -0.05
    assert leep(theta, labels, folds) > -0.2


def test_similarity_of_a_set_to_itself_is_one_however_its_classes_are_numbered() -> None:
    features, labels = RNG.normal(size=(30, 4)), np.arange(30) % 3

    assert emd_similarity(features, labels, SourceMeans.of(features, 2 - labels)) == pytest.approx(1.0)


def test_similarity_of_two_and_three_classes_by_hand() -> None:
    # the source: 2 images at -1 and 2 at 1, each a class: its spread is 1
    source = SourceMeans.of(np.array([[-1.0], [-1.0], [1.0], [1.0]]), np.array([0, 0, 1, 1]))
    # classes of 3 images at 1 and of 1 image at 5: a half of all stays at 1, a quarter goes from -1 to 1 (2)
    # and a quarter from -1 to 5 (6)
    two = emd_similarity(np.array([[0.0], [1.0], [2.0], [5.0]]), np.array([0, 0, 0, 1]), source)
    # three classes of one image at -1, 0 and 1: a sixth goes from -1 to 0 and a sixth from 1 to 0
    three = emd_similarity(np.array([[-1.0], [0.0], [1.0]]), np.arange(3), source)

    assert two == pytest.approx(np.exp(-(0.25 * 2 + 0.25 * 6)))
    assert three == pytest.approx(np.exp(-1 / 3))


def test_similarity_is_by_euclidean_distance_in_units_of_the_sources_spread() -> None:
    corners = np.array([[0.0, 0.0], [0.0, 8.0]])
    moved = corners + np.array([3.0, 4.0])  # both classes by 5, of a spread of 4

    assert emd_similarity(moved, np.arange(2), SourceMeans.of(corners, np.arange(2))) == pytest.approx(
        np.exp(-5 / 4)
    )


def test_similarity_does_not_depend_on_the_number_of_features() -> None:
    features, labels, other = RNG.normal(size=(20, 3)), np.arange(20) % 4, RNG.normal(size=(20, 3))
    once, thrice = (
        emd_similarity(np.tile(features, k), labels, SourceMeans.of(np.tile(other, k), labels))
        for k in (1, 3)
    )

    assert thrice == pytest.approx(once)


def test_two_samples_of_one_distribution_are_as_similar_as_their_number_allows() -> None:
    def of(n: int, m: int) -> float:
        one, other = RNG.normal(size=(n, 500)), RNG.normal(size=(m, 500))
        return emd_similarity(one, np.zeros(n, int), SourceMeans.of(other, np.zeros(m, int)))

    for n, m in ((10, 10), (50, 10), (200, 400)):
        assert of(n, m) == pytest.approx(highest_similarity(n, m), abs=0.03)


def test_a_source_of_equal_images_has_no_value_and_says_why() -> None:
    (measure,) = chosen(["emd"], with_source=True)
    source = SourceMeans.of(np.ones((60, 2)), np.arange(60) % 3)
    images = sample(RNG.normal(size=(60, 2)), np.arange(60) % 3, source=source)

    assert measure.value(images) is None
    assert measure.warnings(images) == ("all images of the source have the same features",)


def test_scaled_features_and_their_spectrum() -> None:
    for shape in ((30, 5), (5, 30)):
        scaled = centred_and_scaled(3 + 4 * RNG.normal(size=shape))
        u, s = left_singular_vectors(scaled)

        assert scaled.mean(axis=0) == pytest.approx(np.zeros(shape[1]), abs=1e-12)
        assert np.mean(scaled**2) == pytest.approx(1.0)
        assert (u * s**2) @ u.T == pytest.approx(scaled @ scaled.T, abs=1e-9)
