"""Warnings about keys that take away the effect of others."""

from dataclasses import replace

import pytest
import tiny

from tlopt import spec
from tlopt.search.warnings import epoch_warnings, norm_warnings, study_warnings

STUDY = """
name = "a"
data = { source = "x" }
model = { backbone = "resnet18" }
budget = { trials = 9, epochs = 8 }
"""


def test_keys_beside_a_fixed_linear_classifier_are_called_idle() -> None:
    rest = 'class_weights = { choice = ["none", "balanced"] }\nlr = { log = [1e-4, 1.0] }\nl2 = 0.1'
    (sentence,) = study_warnings(tiny.study(f'classifier = "svm"\n{rest}'), tiny.facts())
    (one,) = study_warnings(tiny.study('classifier = "logistic"\nlr = 0.1'), tiny.facts())
    searched = 'classifier = { choice = ["network", "svm"] }\nlr = { log = [1e-4, 1.0] }'

    assert sentence.startswith(
        "lr, l2 have no effect: every trial is a linear classifier on frozen features;"
    )
    assert one.startswith("lr has no effect:")
    assert list(study_warnings(tiny.study('classifier = "svm"'), tiny.facts())) == []
    assert list(study_warnings(tiny.study(searched), tiny.facts())) == []
    assert list(study_warnings(tiny.study(searched), replace(tiny.facts(), transferable=False))) == [
        "classifier is not drawn: linear classifiers need features of pretrained weights"
    ]


def norm_sentences(search: str, *, batch_norm: bool) -> list[str]:
    return list(norm_warnings(tiny.study(search), tiny.facts(batch_norm=batch_norm)))


@pytest.mark.parametrize("norm_depth", ["{ int = [0, 17] }", "{ choice = [0.0, 1.0] }", "9"])
def test_a_network_without_batch_norm_is_told_that_it_keeps_no_statistics(norm_depth: str) -> None:
    search = f"norm_depth = {norm_depth}"

    assert norm_sentences(search, batch_norm=True) == []
    assert norm_sentences(search, batch_norm=False) == [
        "large: there are no batch-norm layers, and norm_depth is not drawn"
    ]


def test_of_several_backbones_those_without_batch_norm_are_named() -> None:
    facts = replace(tiny.facts(), batch_norm={"small": False, "large": True})
    study = tiny.study("norm_depth = { uniform = [0.0, 1.0] }", backbone='{ choice = ["small", "large"] }')

    (sentence,) = norm_warnings(study, facts)

    assert sentence == "small: there are no batch-norm layers, and norm_depth comes to 0 there"


def test_kept_weights_without_kept_statistics_are_told() -> None:
    (sentence,) = norm_sentences('norm_affine = "keep"', batch_norm=True)

    assert sentence.startswith("norm_affine has no effect without norm_depth")
    assert norm_sentences('norm_affine = "keep"\nnorm_depth = 3', batch_norm=True) == []
    assert norm_sentences("norm_depth = 0", batch_norm=False) == []


def warnings_of(more: str) -> list[str]:
    return list(epoch_warnings(spec.loads(STUDY + more, "x.toml")))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('[pruner]\nkind = "median"\nmin_epochs = 8', "pruner.min_epochs = 8 leaves nothing to prune"),
        ("[search]\nhead_first_epochs = 8", "head_first_epochs = 8 covers all 8 epochs"),
        (
            "[search]\nhead_first_epochs = { int = [0, 4] }\nepochs = { int = [3, 8] }",
            "head_first_epochs = 4 covers all 3 epochs",
        ),
    ],
)
def test_a_count_of_epochs_that_leaves_nothing_to_another_is_told(more: str, said: str) -> None:
    (sentence,) = warnings_of(more)

    assert sentence.startswith(said)


@pytest.mark.parametrize(
    "more",
    [
        "",
        '[pruner]\nkind = "median"\nmin_epochs = 7',
        '[pruner]\nkind = "none"',
        "[search]\nhead_first_epochs = 7",
    ],
)
def test_of_others_nothing_is_said(more: str) -> None:
    assert warnings_of(more) == []


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('criterion = ["l1"]\nrounds = 2', True),
        ("multiply_adds = []\nloss_max = 1", True),
        ("", False),
        ('multiply_adds = [0.5]\ncriterion = ["l1"]', False),
        ("parameters = [0.3]", False),
    ],
)
def test_a_second_stage_without_shares_is_told(table: str, said: bool) -> None:
    study = spec.loads(f"{tiny.text('lr = 0.1')}\n[prune]\n{table}\n", "x.toml")
    found = [sentence for sentence in study_warnings(study, tiny.facts()) if "[prune]" in sentence]

    assert found == ["[prune] has no effect: name the shares to keep, such as multiply_adds = [0.5]"] * said
