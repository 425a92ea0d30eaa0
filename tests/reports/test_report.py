"""A report is one self-contained file, escapes its input and contains the planted numbers."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import optuna
import pytest
from finished import make_row, make_verdict, planted
from reported import IMAGES, START, report, text, trial

from tlopt import spec
from tlopt.confirmation.prunings import planned_prunings
from tlopt.insight.record import Fit, FitRow
from tlopt.reports.html import page
from tlopt.reports.svg import learning_curves_svg, with_own_ids
from tlopt.spec.default_names import PLAIN_LABEL, PROBE_LABEL, SCRATCH_LABEL
from tlopt.storage.commands import Command

EVIL = "<script>alert('x')</script>"
VOID = {"meta", "link", "br", "img", "hr", "input"}


class Reader(HTMLParser):
    """The page as a browser parses it: elements, addresses, ids, text; fails if an element is not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.said: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"<{tag} {name}>"
            if name in ("src", "href", "xlink:href", "action", "data"):
                self.addresses.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.said))


LATER: dict[str, object] = {
    "transfer_depth": 9,
    "freeze_depth": 0,
    "lr": 0.01,
    "l2_sp": 0.0,
    "backbone": "resnet18",
}


def a_search(n: int = 30, *, backbones: tuple[str, ...] = ("resnet18",)) -> list[optuna.trial.FrozenTrial]:
    """Complete and pruned trials in turns, better the deeper they transfer; every fifth one has no L2-SP."""
    rows = []
    for index in range(n):
        depth = index % 10
        point = {
            "transfer_depth": depth,
            "freeze_depth": depth // 2,
            "lr": 10 ** -(1 + index % 4),
            "l2_sp": 0.0 if index % 5 == 0 else 10 ** -(1 + index // 3 % 3),
            "backbone": backbones[index % len(backbones)],
        }
        value = 0.5 + depth / 25 + index / 1e4
        if index % 3 == 2:
            rows.append(trial(value, outcome="pruned", curve=[0.2, value], minute=index, **point))
        else:
            rows.append(trial(value, curve=[0.2, 0.4, value], minute=index, **point))
    return rows


# Of one piece


def test_a_confirmation_of_several_objectives_shows_costs_and_its_front() -> None:
    rows = [
        replace(make_row(label, [mean] * 3, number=number), inference_cost={"multiply_adds": cost})
        for label, mean, cost, number in (("trial 3", 0.9, 300e6, 3), ("trial 8", 0.8, 20e6, 8))
    ]
    verdict = replace(make_verdict(rows), cost_objectives=("multiply_adds",))
    several = text().replace('objective = "accuracy"', 'objectives = ["accuracy", "multiply_adds"]')

    said = Reader(page(report([], file_text=several, verdict=verdict))).text

    assert "objective: accuracy on validation and multiply-adds" in said
    assert "The front of the confirmed points: trial 3 (90.0 %, 300 M multiply-adds); trial 8" in said
    shown = said[said.index("Confirmation") :]
    assert shown.index("multiply-adds") < shown.index("300 M") < shown.index("The front of")
    assert "get fewer runs" not in shown


def test_a_confirmation_with_limited_costs_shows_them() -> None:
    row = replace(make_row("trial 3", [0.9] * 3, number=3), inference_cost={"multiply_adds": 300e6})
    verdict = replace(make_verdict([row]), cost_limits={"multiply_adds": 400e6})

    said = Reader(page(report([], verdict=verdict))).text

    assert "multiply-adds" in said
    assert "300 M" in said
    assert "The front" not in said


def test_a_confirmation_of_one_objective_says_that_points_drop_out() -> None:
    said = Reader(page(report([], verdict=make_verdict([make_row("trial 3", [0.9] * 3, number=3)])))).text

    assert "points that fall behind get fewer runs" in said


@pytest.mark.parametrize("confirmed", [True, False])
def test_the_file_needs_nothing_from_elsewhere_and_runs_nothing(confirmed: bool) -> None:
    html = page(report(a_search(), verdict=planted() if confirmed else None))
    read = Reader(html)

    assert html.startswith("<!DOCTYPE html>")
    assert not {"script", "link", "iframe", "object", "embed", "img", "base", "form"} & set(read.tags)
    assert all(address.startswith("#") for address in read.addresses)
    assert "://" not in html
    assert "@import" not in html
    assert set(re.findall(r"url\((.)", html)) == {"#"}
    assert "default-src 'none'" in html
    assert 'content="width=device-width' in html


def test_every_id_is_there_once_and_every_reference_has_its_own() -> None:
    html = page(report(a_search()))
    read = Reader(html)
    wanted = [address[1:] for address in read.addresses] + re.findall(r"url\(#([^)]+)\)", html)

    assert len(read.ids) == len(set(read.ids))
    assert set(wanted) <= set(read.ids)


def test_figures_have_the_colours_of_the_page() -> None:
    html = page(report(a_search()))

    assert "prefers-color-scheme: dark" in html
    (body,) = re.findall(r"<body>.*", html, re.DOTALL)
    assert re.findall(r"#[0-9a-f]{6}\b(?![^<]*\")", body) == []
    assert set(re.findall(r"var\(--(\w+)\)", body)) <= set(re.findall(r"--(\w+):", html))


def test_the_fit_of_networks_is_a_table_by_block_where_it_was_measured() -> None:
    rows = tuple(
        FitRow(name=f"layer{i}", n_features=8, values={"linear_probe": 0.25 * i, "logme": None})
        for i in (1, 2)
    )
    fit = Fit(
        backbone="resnet18",
        weights="V1",
        resolution=64,
        n_images=120,
        n_classes=2,
        blocks=rows,
        network=FitRow(name="network", n_features=8, values={**rows[1].values, "leep": -1.5}),
        warnings=("LEEP: 120 images for 1000 source classes",),
    )
    made = report(a_search())
    said = Reader(page(replace(made, fits=(fit,)))).text

    assert "Fit of the pretrained network" not in Reader(page(made)).text
    assert "resnet18 (V1), 64 pixels, 120 training images" in said
    assert "linear probe, % LogME, nats 1 layer1 25.0 – 2 layer2 50.0 –" in said
    assert "LEEP, nats: -1.5 LEEP: 120 images for 1000 source classes" in said


def test_what_comes_from_people_is_text_and_no_markup() -> None:
    images = {**IMAGES, "class_names": [EVIL, '" onload="x'], "n_classes": 2}
    trials = [
        *a_search(12),
        trial(None, outcome="diverged", cause=EVIL, minute=40),
        trial(0.9, label=EVIL, minute=41),
    ]
    told = Command("stopped", EVIL)
    evil_text = text(source=EVIL).replace("[data]", f"# {EVIL}\n[data]")

    html = page(report(trials, images=images, file_text=evil_text, order=told))
    read = Reader(html)

    assert "<script" not in html
    assert "script" not in read.tags
    assert read.text.count(EVIL) >= 6  # order, label, cause, class, source, file


def test_a_dollar_sign_in_a_backbone_is_no_formula() -> None:
    """The network's name is written on the axes."""
    backbones = ("timm:a$b$<i>", "resnet18")
    chosen = text(backbone='{ choice = ["timm:a$b$<i>", "resnet18"] }')

    html = page(report(a_search(40, backbones=backbones), file_text=chosen))

    assert "transfer_depth of timm:a$b$&lt;i&gt;, in blocks" in html


# What it says


def test_a_confirmed_study_says_its_gains_with_their_interval() -> None:
    said = Reader(page(report(a_search(), verdict=planted()))).text

    assert re.search(r"test accuracy 91\.0 ± 1\.0 % 3 seeds", said)
    assert re.search(r"over plain fine-tuning \+2\.0 points", said)
    assert re.search(r"over linear probe \+10\.0 points", said)
    assert "Chosen by validation: trial 12" in said
    assert "Not confirmed" not in said


def test_without_a_confirmation_the_best_trial_is_called_lucky() -> None:
    said = Reader(page(report(a_search(30)))).text

    assert "Not confirmed yet: a best trial is a lucky trial" in said
    assert "validation accuracy of trial 19 86.2 % one run; not confirmed" in said  # 29 is better, and pruned
    assert "test accuracy" not in said


def test_a_confirmation_under_way_is_no_evidence_yet() -> None:
    whole = planted()
    going = type(whole)(**{**vars(whole), "n_finished": 5})

    said = Reader(page(report(a_search(), verdict=going))).text

    assert "Not confirmed yet: 5 of 9 runs of the confirmation have ended" in said
    assert "over plain fine-tuning +" not in said


def test_prunings_are_told_in_a_sentence() -> None:
    verdict = planted()
    found = report(a_search(), file_text=text() + "[prune]\nparameters = [0.5, 0.3]\n", verdict=verdict)
    begun = replace(found.snapshot, planned_prunings=planned_prunings(found.study, verdict))

    said = Reader(page(replace(found, snapshot=begun))).text

    assert "Smaller networks Prunings: 0 of 2 prunings ended. The second stage" in said


def test_a_study_without_test_images_says_that_its_value_is_too_good() -> None:
    rows = [make_row("trial 3", (0.9, 0.92)), make_row(PLAIN_LABEL, (0.8, 0.84), number=-1)]

    said = Reader(page(report(a_search(), verdict=make_verdict(rows, test_readings=0)))).text

    assert "validation accuracy 91.0 ± 1.4 %" in said
    assert "The test images have not been read" in said
    assert "+9.0 points on validation" in said


def test_a_gain_whose_interval_holds_zero_is_not_told_apart() -> None:
    rows = [
        make_row("trial 3", (0.90, 0.94), (0.90, 0.94)),
        make_row(PLAIN_LABEL, (0.80, 0.84), (0.95, 0.87), number=-1),
        make_row(PROBE_LABEL, (0.2, 0.3), (0.2, 0.3), number=-2),
    ]

    said = Reader(page(report(a_search(), verdict=make_verdict(rows)))).text

    assert "+1.0 points on test: not told apart (95 % interval" in said


def test_training_from_scratch_is_a_default_too() -> None:
    rows = [
        make_row("trial 3", (0.9, 0.9), (0.9, 0.9)),
        make_row(SCRATCH_LABEL, (0.5, 0.5), (0.5, 0.5), number=-1),
    ]

    assert (
        "over training from scratch +40.0 points"
        in Reader(page(report(a_search(), verdict=make_verdict(rows)))).text
    )


def test_candidates_that_all_failed_confirm_nothing() -> None:
    verdict = make_verdict([make_row("trial 3", ()), make_row(PLAIN_LABEL, (), number=-1)])

    said = Reader(page(report(a_search(), verdict=verdict))).text

    assert "No candidate of the confirmation ended with a value" in said


def test_log_loss_is_minimised_and_in_nats() -> None:
    trials = [
        trial(value, minute=index, lr=0.01 * (index + 1)) for index, value in enumerate((0.9, 0.25, 0.6))
    ]

    html = page(report(trials, file_text=text(objective="log_loss")))
    said = Reader(html).text

    assert "validation log-loss of trial 1 0.2500" in said
    assert "validation log-loss, nats" in said
    assert said.index("1 0.2500") < said.index("2 0.6000") < said.index("0 0.9000")


def test_a_study_without_complete_trials_has_its_causes_and_its_cost() -> None:
    trials = [
        trial(0.4, outcome="pruned", curve=[0.2, 0.3, 0.4], seconds=3600, minute=1),
        trial(None, outcome="diverged", cause="the loss is not finite", seconds=1800, minute=2),
        trial(None, outcome="diverged", cause="the loss is not finite", seconds=1800, minute=3),
    ]

    said = Reader(page(report(trials))).text

    assert "No trial is complete, so there are no values to show yet." in said
    assert "diverged, 2 (trial 1, 2): the loss is not finite" in said
    assert "pruned 1 3 — 60.0 minutes" in said
    assert "together 3 3 — 2.0 hours" in said
    assert "as a study file" not in said


def test_a_study_without_any_trial_has_a_report() -> None:
    said = Reader(page(report([]))).text

    assert "There are no trials." in said
    assert "0 of 60 trials" in said


def test_a_searched_backbone_has_depths_of_its_own() -> None:
    html = page(
        report(
            a_search(40, backbones=("resnet18", "resnet50")),
            file_text=text(backbone='{ choice = ["resnet18", "resnet50"] }'),
        )
    )

    for name in ("resnet18", "resnet50"):
        assert f"transfer_depth of {name}, in blocks" in html


def test_a_linear_classifier_shows_no_value_of_keys_that_do_not_affect_it() -> None:
    linear = trial(0.95, classifier="logistic", transfer_depth=9, freeze_depth=9, lr=0.0123)
    file_text = text().replace("[search]", '[search]\nclassifier = { choice = ["network", "logistic"] }')

    html = page(report([*a_search(12), linear], file_text=file_text))

    rows = re.findall(r"<tr[^>]*>.*?</tr>", html, re.DOTALL)
    (cells,) = [c for row in rows if "95.0 %" in (c := re.findall(r"<td[^>]*>([^<]*)</td>", row))]
    assert cells[1:4] == ["95.0 %", "1", "logistic"]
    assert set(cells[4:]) == {"—"}
    assert "0.0123" not in html  # neither in the table nor in the figure of lr
    assert re.findall(r"(\d+) complete trials\. Left out: 1 linear classifier\.", html)


def test_a_depth_of_kept_statistics_has_its_figure_and_trials_from_before_are_in_it() -> None:
    before = a_search(12)
    later = [trial(0.9 + i / 100, minute=20 + i, **LATER, norm_depth=9) for i in range(4)]

    html = page(report([*before, *later]))

    (figure,) = [f for f in re.findall(r"<figure>.*?</figure>", html, re.DOTALL) if "at norm_depth" in f]
    assert "at norm_depth 9, among 12 complete trials from 0 to 9" in figure  # eight of them from before
    assert "at norm_depth" not in page(report(before))


def test_off_stands_at_the_left_edge_of_a_logarithmic_axis() -> None:
    html = page(report(a_search()))

    figures = re.findall(r"<figure>.*?</figure>", html, re.DOTALL)
    (l2_sp,) = [figure for figure in figures if " at l2_sp " in figure]
    labels = {
        text: float(x) for x, text in re.findall(r'<text [^>]* x="([\d.]+)"[^>]*>([\d.]+)</text>', l2_sp)
    }
    assert labels["0"] < labels["0.001"] < labels["0.01"] < labels["0.1"]
    assert "Left of the dotted line: off (0)." in l2_sp


def test_the_best_point_is_there_as_a_study_file_that_decodes() -> None:
    html = page(report(a_search()))
    (config,) = re.findall(r"<pre>(# One point.*?)</pre>", html, re.DOTALL)

    written = spec.loads(config.replace("&#34;", '"'), "config.toml")

    assert written.name == "flowers-trial-19"
    assert all(not hasattr(dimension, "low") for dimension in written.search.values())


def test_images_and_classes_are_those_of_the_database() -> None:
    said = Reader(page(report([]))).text

    assert "1,234 to train and 321 to validate; 456 held out for the test" in said
    assert "rose, tulip" in said


def test_a_study_that_recorded_no_images_says_so() -> None:
    said = Reader(page(report([], images={}))).text

    assert "numbers and classes were not recorded when the study began" in said


def test_of_a_thousand_classes_some_are_named_and_the_others_counted() -> None:
    images = {**IMAGES, "class_names": [f"class{i}" for i in range(1000)], "n_classes": 21843}

    assert "class199 and 21,643 more" in Reader(page(report([], images=images))).text


def test_the_best_so_far_goes_by_when_trials_ended_and_not_by_their_numbers() -> None:
    late, early = trial(0.7, minute=9), trial(0.6, minute=1)
    assert late.datetime_complete is not None
    assert late.datetime_complete > START

    html = page(report([late, early]))

    figures = re.findall(r"<figure>.*?</figure>", html, re.DOTALL)
    (line,) = re.findall(r'<path d="([^"]*)"[^>]*stroke: var\(--line\)', figures[0])[:1]
    heights = [float(y) for y in re.findall(r"[ML] [\d.]+ ([\d.]+)", line)]
    assert heights[-1] < heights[0]  # it rises: y counts downwards


# Many trials


def test_ten_thousand_trials_come_to_a_small_file_that_says_what_it_leaves_out() -> None:
    html = page(report(a_search(10_000)))

    assert len(html.encode()) < 3_000_000
    assert "of 6667 points are drawn" in html
    assert re.search(r"in grey pruned ones \(80 of 3333\)", html)


# Importance


def test_a_key_that_never_varied_gets_no_share_and_each_share_stands_beside_chance() -> None:
    trials = [trial(0.1 * (i % 9), freeze_depth=i % 9, transfer_depth=9, minute=i) for i in range(60)]

    said = Reader(page(report(trials))).text

    assert "key share 95 % interval by chance evidence" in said
    assert re.search(r"freeze_depth 100\.0 % 100\.0 % to 100\.0 % [\d.]+ % stands out", said)
    assert "Left out, since they had one value in all trials: " in said


def test_own_ids_reach_every_reference() -> None:
    svg = '<g id="a"/><use href="#a"/><g clip-path="url(#a)"/>'

    assert with_own_ids(svg, "p") == '<g id="p-a"/><use href="#p-a"/><g clip-path="url(#p-a)"/>'


def test_curves_of_one_epoch_have_one_tick() -> None:
    svg = learning_curves_svg([np.array([[3.0, 0.5]])], [], objective="accuracy", alt="")
    texts = re.findall(r">([^<>]+)</text>", svg)

    assert texts[: texts.index("epoch")] == ["3"]
