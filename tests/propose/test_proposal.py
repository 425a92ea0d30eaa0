"""A proposal fits the images, the machine and the time given. No test here measures time."""

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tlopt import spec
from tlopt.data.load import load_data
from tlopt.errors import DataError, SpecError, WeightsError
from tlopt.model.build import n_blocks
from tlopt.model.facts import BackboneFacts
from tlopt.model.rates import has_batch_norm, usual_lr
from tlopt.model.weights import Weights, load_weights
from tlopt.propose import proposal as module
from tlopt.propose import study_file
from tlopt.propose.budget import ImageCounts, Size, Terms, choose_size, minutes
from tlopt.propose.proposal import Proposal, ProposalRequest, propose, study_name
from tlopt.search.defaults import defaults, start_point
from tlopt.search.portfolio import KEPT_STATISTICS
from tlopt.search.space import check_depths
from tlopt.search.warnings import epoch_warnings
from tlopt.spec import Study
from tlopt.spec.dimensions import Choice, Fixed, Int, Log, contains
from tlopt.spec.sections import DataSpec
from tlopt.training.timing import Machine, TrainingCost, detect_machine, measure_costs

CPU = Machine(device="cpu", device_name="planted", n_devices=1, n_cores=2)
GPU = dataclasses.replace(CPU, device="cuda:0", device_name="planted GPU")
EVERYTHING = ProposalRequest(backbone="resnet18", trials=12, epochs=5, resolution=96, name="mine")


def cost(ms: float, *, build: float = 0.0) -> TrainingCost:
    """`ms` milliseconds an image in full, half of it half frozen, a fifth all frozen."""
    return TrainingCost(full=ms / 1000, half=ms / 2000, frozen=ms / 5000, build=build)


@pytest.fixture(autouse=True)
def _planted_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A millisecond an image at 32 pixels, in proportion to the number of pixels."""

    def measured(weights: Weights, resolutions: Sequence[int], **_: object) -> dict[int, TrainingCost]:
        return {r: cost((r / 32) ** 2, build=0.2) for r in resolutions}

    monkeypatch.setattr(module, "measure_costs", measured)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Named weights of torchvision stand in untrained, so that nothing is fetched."""

    def stand_in(backbone: str, weights: str) -> Weights:
        return with_state(load_weights(backbone, "none"))

    monkeypatch.setattr(module, "load_weights", stand_in)


def with_state(weights: Weights) -> Weights:
    return dataclasses.replace(weights, label="PLANTED", state={"x": torch.zeros(1)})


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets only `at_hand` have weights."""

    def cut(*at_hand: str) -> None:
        def load(backbone: str, weights: str) -> Weights:
            if weights != "none" and backbone not in at_hand:
                raise WeightsError(f"{backbone}: planted complaint")
            untrained = load_weights(backbone, "none")
            return untrained if weights == "none" else with_state(untrained)

        monkeypatch.setattr(module, "load_weights", load)

    return cut


@pytest.fixture
def images(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of noise: `images({"a": 9, "b": 12}, side=28, grey=True)`."""

    def make(classes: dict[str, int], *, side: int = 40, grey: bool = False, name: str = "my set") -> Path:
        random = np.random.default_rng(3)
        shape = (side, side) if grey else (side, side, 3)
        for class_name, count in classes.items():
            (tmp_path / name / class_name).mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 256, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / name / class_name / f"{index}.png")
        return tmp_path / name

    return make


FOLDERS: dict[str, dict[str, Any]] = {
    "few": {"classes": {"cat": 12, "dog": 14}},
    "unequal": {"classes": {"cat": 60, "dog": 15, "eel": 20}},
    "grey and small": {"classes": {"3": 30, "8": 30}, "side": 28, "grey": True},
    "forty classes": {"classes": {f"class {i}": 6 for i in range(40)}, "side": 24},
}


@pytest.fixture(params=FOLDERS)
def folder(request: pytest.FixtureRequest, images: Callable[..., Path]) -> Path:
    return images(**FOLDERS[request.param])


def study_of(proposal: Proposal) -> Study:
    return spec.loads(proposal.text, "proposed")


def facts_of(study: Study) -> BackboneFacts:
    name = study.model.backbones[0]
    expected = load_weights(name, "none").resolution
    return BackboneFacts(
        n_blocks={name: n_blocks(name)},
        transferable=True,
        resolution={name: expected},
        batch_norm={name: has_batch_norm(name)},
        plain_lr={name: usual_lr(name)},
    )


@pytest.mark.parametrize("machine", [CPU, GPU], ids=["cpu", "gpu"])
@pytest.mark.parametrize("backbone", ["resnet18", "convnext_tiny", "vit_b_16"])
def test_a_proposal_holds_both_defaults_and_no_depth_beyond_the_backbone(folder, machine, backbone):
    study = study_of(propose(str(folder), ProposalRequest(backbone=backbone), machine))

    check_depths(study, facts_of(study))
    assert all(default.params is not None for default in defaults(study, facts_of(study)))


def test_wishes_stay_as_they_are(folder):
    study = study_of(propose(str(folder), EVERYTHING, CPU))

    assert study.name == "mine"
    assert study.model.backbones == ("resnet18",)
    assert (study.budget.trials, study.budget.epochs) == (12, 5)
    assert study.search["resolution"] == Fixed(96)


@pytest.mark.parametrize(("epochs", "kind"), [(1, "none"), (2, "none"), (3, "median")])
def test_trials_too_short_to_be_stopped_have_no_pruner(images, epochs, kind):
    request = dataclasses.replace(EVERYTHING, epochs=epochs)
    study = study_of(propose(str(images(**FOLDERS["few"])), request, CPU))

    assert study.pruner.kind == kind
    assert list(epoch_warnings(study)) == []


def test_few_dimensions_are_searched(folder):
    study = study_of(propose(str(folder), ProposalRequest(), CPU))
    networks = {name: range_ for name, range_ in study.search.items() if name != "classifier"}

    assert 5 <= sum(not isinstance(dimension, Fixed) for dimension in networks.values()) <= 8


@pytest.mark.parametrize(("backbone", "searched"), [("resnet18", Int(0, 9)), ("convnext_tiny", None)])
def test_kept_statistics_are_searched_where_there_is_batch_norm(images, backbone, searched):
    request = dataclasses.replace(EVERYTHING, backbone=backbone)
    study = study_of(propose(str(images({"a": 9, "b": 9})), request, CPU))

    assert study.search.get("norm_depth") == searched
    assert (start_point(KEPT_STATISTICS, study, facts_of(study)) is not None) is (searched is not None)


@pytest.mark.parametrize("wished", [3.0, 8.0, 30.0])
def test_the_expected_minutes_are_within_the_wish(folder, wished):
    proposal = propose(str(folder), ProposalRequest(minutes=wished), CPU)

    assert 0 < proposal.minutes <= wished


def test_a_cpu_has_half_an_hour_unless_asked_for_more(folder):
    assert propose(str(folder), ProposalRequest(), CPU).minutes <= 30


def test_without_a_limit_of_time_a_gpu_study_is_long(images):
    study = study_of(propose(str(images({"cat": 20, "dog": 20}, side=300)), ProposalRequest(), GPU))

    assert (study.budget.trials, study.budget.epochs, study.budget.hours) == (60, 24, 0)
    assert study.model.backbones == ("resnet50",)
    assert study.search["resolution"] == Fixed(224)


def test_keys_of_data_that_are_asked_for_are_in_the_file_and_decide_what_is_seen(images):
    root = images({"a": 30, "b": 30})
    request = dataclasses.replace(EVERYTHING, data={"test_fraction": 0.5, "group_pattern": r"(\d+)\.png$"})
    proposal = propose(str(root), request, CPU)
    study = spec.loads(proposal.text, "x.toml")
    assert (study.data.test_fraction, study.data.group_pattern) == (0.5, r"(\d+)\.png$")
    assert "Classes: a, b." in proposal.notes
    assert any("18 to train, 12 to validate, 30 held out for the test" in note for note in proposal.notes)


def test_folds_that_are_asked_for_take_the_place_of_repeats(images):
    request = dataclasses.replace(EVERYTHING, data={"folds": 4})
    study = spec.loads(propose(str(images({"a": 20, "b": 20})), request, CPU).text, "x.toml")
    assert (study.data.folds, study.data.repeats) == (4, 0)


def test_folds_that_are_asked_for_count_in_the_expected_time(images):
    request = dataclasses.replace(EVERYTHING, data={"folds": 10}, minutes=1)
    proposal = propose(str(images({"a": 20, "b": 20})), request, CPU)

    assert study_of(proposal).data.folds == 10
    assert any("10 splits, as asked, and costs 10 trainings" in note for note in proposal.notes)
    assert not any("repeats = 1" in note for note in proposal.notes)


def test_an_unknown_key_of_data_is_an_error(images):
    request = dataclasses.replace(EVERYTHING, data={"group_colum": "x"})
    with pytest.raises(SpecError, match=r"\[data\] group_colum: unknown key; did you mean group_column"):
        propose(str(images({"a": 9, "b": 9})), request, CPU)


def test_unequal_classes_are_judged_by_balanced_accuracy(images):
    proposal = propose(str(images(**FOLDERS["unequal"])), ProposalRequest(), CPU)
    study = study_of(proposal)

    assert study.objective == "balanced_accuracy"
    assert study.search["class_weights"] == Choice(("none", "balanced"))
    assert any("balanced accuracy" in note for note in proposal.notes)


def test_equal_classes_are_judged_by_accuracy(images):
    study = study_of(propose(str(images(**FOLDERS["few"])), ProposalRequest(), CPU))

    assert study.objective == "accuracy"
    assert "class_weights" not in study.search


def test_small_images_are_not_blown_up_to_what_the_weights_expect(images):
    proposal = propose(str(images(**FOLDERS["grey and small"])), ProposalRequest(backbone="resnet18"), GPU)

    assert study_of(proposal).search["resolution"] == Fixed(96)
    assert any("grey" in note for note in proposal.notes)


@pytest.mark.parametrize(("names", "flip"), [(("3", "8"), False), (("b", "d"), False), (("b", "dog"), True)])
def test_digits_and_letters_are_not_mirrored(images, names, flip):
    study = study_of(propose(str(images(dict.fromkeys(names, 8))), ProposalRequest(), CPU))

    assert study.data.flip is flip


def test_few_images_are_trained_on_three_splits_in_small_batches(images):
    proposal = propose(str(images(**FOLDERS["few"])), ProposalRequest(), CPU)
    study = study_of(proposal)

    assert (study.data.repeats, study.data.confirm_splits) == (3, 0)
    assert study.search["batch_size"] == Fixed(8)
    assert any("3 splits" in note for note in proposal.notes)


@pytest.mark.parametrize(
    ("n_train", "epochs", "expected", "steps"),
    [
        (240, 8, 16, 120),  # with 32 there would be 64
        (96, 8, 8, 96),
        (97, 8, 8, 104),  # a last batch of one image is a step
        (96, 16, 16, 96),
        (30, 8, 8, 32),  # never fewer images per step
        (60_000, 24, 32, 45_000),  # many images keep large batches
    ],
)
def test_few_images_get_smaller_batches_so_that_a_trial_has_enough_steps(n_train, epochs, expected, steps):
    found = study_file.batch_size(n_train, epochs)

    assert (found, study_file.n_steps(n_train, epochs, found)) == (expected, steps)


@given(st.integers(1, 10_000), st.integers(1, 100))
def test_a_batch_is_the_largest_that_gives_enough_steps(n_train, epochs):
    found = study_file.batch_size(n_train, epochs)
    larger = [size for size in study_file.BATCH_SIZES if size > found]

    assert all(study_file.n_steps(n_train, epochs, size) < study_file.STEPS_MIN for size in larger)
    assert found == 8 or study_file.n_steps(n_train, epochs, found) >= study_file.STEPS_MIN


def test_the_study_file_says_how_many_steps_a_trial_has(images):
    proposal = propose(str(images(**FOLDERS["few"])), EVERYTHING, CPU)
    data = load_data(study_of(proposal).data, seed=0, progress=False)

    (line,) = (line for line in proposal.text.splitlines() if line.startswith("batch_size = 8 "))
    steps = 5 * math.ceil(len(data.splits[0].train) / 8)
    assert line.endswith(f"# training images per step: {steps} steps per trial, with larger batches too few")


def test_repeated_splits_are_given_up_where_they_do_not_fit(images):
    proposal = propose(
        str(images({"cat": 200, "dog": 200}, side=24)), ProposalRequest(resolution=224, minutes=12), CPU
    )

    assert (study_of(proposal).data.repeats, study_of(proposal).data.confirm_splits) == (1, 3)
    assert any("repeats = 1" in note for note in proposal.notes)


def test_a_study_that_cannot_fit_says_so(images):
    proposal = propose(str(images(**FOLDERS["few"])), ProposalRequest(trials=500, epochs=500, minutes=1), CPU)

    assert proposal.minutes > 1
    assert any("does not fit" in note for note in proposal.notes)


def test_the_sources_own_validation_split_leaves_nothing_to_repeat(images):
    root = images({"train/cat": 12, "train/dog": 12, "val/cat": 5, "val/dog": 5})

    assert "repeats" not in propose(str(root), ProposalRequest(), CPU).text


def test_digits_of_scikit_learn_are_a_source():

    study = study_of(propose("digits", ProposalRequest(), CPU))

    assert study.data.source == "digits"
    assert study.data.flip is False
    assert study.search["resolution"] == Fixed(64)


def test_a_wished_backbone_without_weights_is_kept_and_explained(images, offline):
    offline("efficientnet_lite0")

    proposal = propose(str(images(**FOLDERS["few"])), ProposalRequest(backbone="resnet50"), CPU)
    study = study_of(proposal)

    assert (study.model.backbones, study.model.weights) == (("resnet50",), "default")
    assert any("planted complaint" in note for note in proposal.notes)
    assert any("--backbone efficientnet_lite0" in note for note in proposal.notes)
    assert "NOT AVAILABLE" in proposal.text


@pytest.mark.parametrize(("machine", "at_hand"), [(GPU, "efficientnet_lite0"), (CPU, "mobilenet_v3_large")])
def test_the_second_choice_is_proposed_where_the_first_has_no_weights(images, offline, machine, at_hand):
    offline(at_hand)

    proposal = propose(str(images(**FOLDERS["few"])), ProposalRequest(), machine)

    assert study_of(proposal).model.backbones == (at_hand,)
    assert any("planted complaint" in note for note in proposal.notes)


def test_a_file_is_written_even_where_no_weights_are_at_hand(images, offline):
    offline()

    proposal = propose(str(images(**FOLDERS["few"])), ProposalRequest(), GPU)

    assert study_of(proposal).model.backbones == ("resnet50",)
    assert "NOT AVAILABLE" in proposal.text


@pytest.mark.parametrize(
    "asked",
    [
        ProposalRequest(backbone="resnet51"),
        ProposalRequest(trials=0),
        ProposalRequest(name="a b"),
        ProposalRequest(backbone="vit_b_16", resolution=100),
    ],
    ids=["backbone", "trials", "name", "resolution"],
)
def test_an_impossible_wish_is_an_error(images, asked):
    with pytest.raises(SpecError):
        propose(str(images(**FOLDERS["few"])), asked, CPU)


def test_a_folder_without_images_is_an_error_of_the_data(tmp_path):
    with pytest.raises(DataError):
        propose(str(tmp_path), ProposalRequest(), CPU)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("photos/", "photos"),
        ("data/My flowers (2024)/", "My-flowers-2024"),
        ("torchvision:Flowers102", "Flowers102"),
        ("digits", "digits"),
        ("/data/Blüten", "Bluten"),
        ("/data/花", "images"),
        ("/data/..hidden.confirm.confirm", "hidden"),
        ("/data/" + "x" * 200, "x" * 60),
    ],
)
def test_the_name_is_the_folders(source, name):
    assert study_name(source) == name


@given(st.text(st.characters(exclude_characters="/\0"), max_size=90))
def test_every_folders_name_gives_a_studys_name(folder):
    name = study_name(f"/data/{folder}")

    assert re.fullmatch(spec.NAME_PATTERN, name)
    assert not name.endswith(".confirm")


def test_every_path_can_be_a_source(images):
    root = images({"cat": 8, "dog": 8}, name='a "quoted" \\ 😀 set')

    assert study_of(propose(str(root), ProposalRequest(), CPU)).data.source == str(root)


@pytest.mark.parametrize(("plain", "low"), [(1e-3, 1e-4), (1e-4, 1e-5)])
def test_the_rates_hold_plain_fine_tuning_and_the_probe(plain, low):
    lowest, highest = study_file.lr_range(plain)

    assert lowest == low
    assert all(contains(Log(lowest, highest), rate) for rate in (plain, 0.01))


def test_no_step_of_the_proposed_pulls_passes_its_anchor(folder):
    study = study_of(propose(str(folder), ProposalRequest(), CPU))
    lr, l2_sp = study.search["lr"], study.search["l2_sp"]

    assert isinstance(lr, Log)
    assert isinstance(l2_sp, Log)
    assert l2_sp.zero
    assert lr.high * l2_sp.high <= 1


@pytest.mark.parametrize(("n_train", "low"), [(100, 8), (100_000, 0)])
def test_a_network_from_scratch_is_searched_with_many_images_only(images, n_train, low):
    source = DataSpec(source=str(images(**FOLDERS["few"])))
    seen = module.summarize(source, seed=0, progress=False)
    choices = study_file.Choices(
        name="x",
        source="y",
        backbone="efficientnet_lite0",
        weights_available=True,
        resolution_expected=224,
        batch_norm=True,
        n_blocks=17,
        plain_lr=1e-3,
        summary=seen,
        data={},
        size=Size(resolution=96, repeats=1, trials=20, epochs=8, points=3),
        n_train=n_train,
        batch_size=32,
        estimate="soon",
    )

    assert spec.loads(study_file.write_study(choices), "x").search["transfer_depth"] == Int(low, 17)


def terms(minutes_max: float, *, n: int = 1000, ms: float = 10.0) -> Terms:
    costs = {r: cost(ms * (r / 64) ** 2) for r in (64, 96, 128, 160, 224)}
    counts = ImageCounts(train=n, val=n // 4, test=n // 4)
    return Terms(
        costs=costs, counts=counts, n_workers=2, n_classes=5, n_trained_defaults=1, minutes_max=minutes_max
    )


def test_the_minutes_are_those_computed_by_hand():
    size = Size(resolution=64, repeats=1, trials=10, epochs=10, points=2)
    known = terms(1e9, n=100, ms=60)  # 60, 30 and 12 ms; searched: (60 + 4 * 30 + 12) / 6 = 32 ms

    # seconds of a trial, with 25 validation images: frozen 15, full 63, searched 35, confirmed 49
    partly = 0.8 * 15 + 0.2 * 63
    search = 15 + 63 + partly + (2 + 0.7 * 5) * 35
    confirmed = 3 * (15 + 63 + partly + 2 * 49)
    test = 4 * 3 * 25 * 0.012
    assert minutes(size, known) == pytest.approx((16 + (search + confirmed) / 2 + test) / 60)

    # with a second default that trains the whole network, and one trial fewer among the first five
    more = 63 - 35 + 3 * 63
    both = dataclasses.replace(known, n_trained_defaults=2)
    extra = (more / 2 + 3 * 25 * 0.012) / 60
    assert minutes(size, both) == pytest.approx(minutes(size, known) + extra)


def test_linear_classifiers_cost_one_reading_of_the_images():
    size = Size(resolution=64, repeats=1, trials=10, epochs=10, points=2)
    known = dataclasses.replace(
        terms(1e9, n=100, ms=60), n_linear=2
    )  # 100 training, 25 validation and test images

    linear = 125 * 0.012
    partly = 0.8 * 15 + 0.2 * 63
    search = 2 * linear + 15 + 63 + partly + (2 + 0.7 * 3) * 35
    confirmed = 3 * (15 + 63 + partly + linear + 2 * 49)
    test = 4 * 3 * 25 * 0.012
    assert minutes(size, known) == pytest.approx((16 + (search + confirmed) / 2 + test) / 60)

    alone = dataclasses.replace(known, n_linear=10)
    confirmed = 3 * (15 + 63 + partly + linear + 2 * linear)
    assert minutes(size, alone) == pytest.approx((16 + (10 * linear + confirmed) / 2 + test) / 60)


def chosen(known: Terms, *, repeats: int = 1, trials: int | None = None, epochs: int | None = None) -> Size:
    return choose_size((64, 96, 128, 160, 224), repeats, known, trials=trials, epochs=epochs)


def test_time_is_given_up_in_order_resolution_epochs_trials_points_images():
    sizes = [chosen(terms(minutes_max)) for minutes_max in (1000, 60, 25, 15, 12, 10, 6, 3)]

    assert [size.resolution for size in sizes] == sorted((s.resolution for s in sizes), reverse=True)
    for size in sizes:
        thin = size.trials < 16 or size.epochs < 6
        assert not thin or size.resolution == 64
        assert size.trials == 16 or size.epochs == 4 or not thin
        assert size.points == 6 or (size.trials, size.epochs) == (10, 4)
        assert not size.images_max or size.points == 2
    assert sizes[0] == Size(resolution=224, repeats=1, trials=60, epochs=24, points=6)
    assert sizes[-1].images_max > 0


@pytest.mark.parametrize("minutes_max", [1000, 60, 25, 15, 12, 10, 6, 3])
def test_the_chosen_size_fits(minutes_max):
    known = terms(minutes_max)

    assert minutes(chosen(known), known) <= minutes_max


def test_repeated_splits_outlast_resolutions_above_128_only():
    sizes = [chosen(terms(minutes_max, n=300), repeats=3) for minutes_max in (1000, 60, 40, 20, 10)]

    assert sizes[0].repeats == 3
    assert sizes[-1].repeats == 1
    assert all(size.resolution >= 128 for size in sizes if size.repeats == 3)


def test_splits_that_were_asked_for_stay_and_count():
    known, wished = terms(10, n=300), {"trials": 12, "epochs": 5}
    asked = choose_size((96,), 10, known, **wished, insists=True)

    assert asked.repeats == 10
    assert choose_size((96,), 10, known, **wished).repeats == 1
    assert minutes(asked, known) > 2 * minutes(dataclasses.replace(asked, repeats=1), known)


@pytest.mark.parametrize(("device", "cores", "workers"), [("cpu", 2, 2), ("cpu", 64, 4), ("cuda:0", 64, 8)])
def test_there_is_a_worker_for_each_gpu_or_for_up_to_four_cores(device, cores, workers):
    machine = dataclasses.replace(CPU, device=device, n_cores=cores, n_devices=8)

    assert machine.n_workers == workers


def test_this_machine_has_cores_and_a_name():
    machine = detect_machine()

    assert machine.n_cores >= 1
    assert machine.n_devices >= 1
    assert machine.device_name


def test_apples_gpu_is_not_chosen_by_itself(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)

    assert detect_machine().device == "cpu"


def test_costs_are_measured_at_two_resolutions_and_drawn_through_them(monkeypatch):
    weights = load_weights("resnet18", "none")
    planted = {64: cost(10.0), 128: cost(34.0)}
    monkeypatch.setattr("tlopt.training.timing._measure", lambda weights, r, **_: planted[r])

    costs = measure_costs(weights, [64, 96, 128, 160], n_classes=2, batch_size=4, device="cpu")

    assert [c.full * 1000 for c in costs.values()] == pytest.approx([10, 20, 34, 52])


def test_a_busy_machine_is_mentioned_and_does_not_shrink_the_study(images, monkeypatch):
    root = str(images(**FOLDERS["few"]))
    idle = propose(root, ProposalRequest(), CPU)
    planted = {
        r: dataclasses.replace(cost((r / 32) ** 2, build=0.2), load_factor=4.0) for r in module.RESOLUTIONS
    }
    monkeypatch.setattr(module, "measure_costs", lambda *_, **__: planted)

    busy = propose(root, ProposalRequest(), CPU)

    assert busy.text == idle.text
    assert any("4.0 times" in note for note in busy.notes)


def test_a_real_measurement_gives_positive_seconds_and_leaves_torchs_threads():
    n_threads = torch.get_num_threads()

    costs = measure_costs(load_weights("resnet18", "none"), [32], n_classes=2, batch_size=2, device="cpu")

    assert min(dataclasses.astuple(costs[32])) > 0
    assert torch.get_num_threads() == n_threads
