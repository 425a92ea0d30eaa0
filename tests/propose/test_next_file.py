"""A follow-up study's file is the earlier one with other ranges: layout and comments stay."""

import pytest

from tlopt import spec
from tlopt.propose.next_file import MARK, NewRange, next_file
from tlopt.spec import Study
from tlopt.spec.dimensions import Choice, Fixed, Int, Log

REST = """
[data]
source = "photos"   # ours
[model]
backbone = "resnet18"
[budget]
trials = 3
epochs = 2
"""
PLAIN = f"""#:schema ./tlopt.schema.json
# My study.
name   = "photos"        # its name
seed = 7
{REST}
[search]
freeze_depth = {{ int = [0, 9] }}            # never change
lr   = {{ log = [1e-4, 1e-2] }}              # the rate
l2_sp = {{ log = [1e-4, 1.0], zero = true }} # a pull
augmentation = {{ choice = [0.2, 0.5, 0.7] }}
"""
LR = NewRange(key="lr", dimension=Log(1e-4, 0.1), reason="4 of 5 above 0.005")
PULL = NewRange(key="l2_sp", dimension=Log(1e-3, 1.0), reason="off is worse")


def followed(text: str, *ranges: NewRange) -> str:
    return next_file(text, ranges, name="photos-2", earlier="photos", title="60 trials")


def read(text: str) -> Study:
    return spec.loads(text, "photos-2.toml")


def test_only_the_changed_lines_differ_and_each_has_its_reason_above() -> None:
    text = followed(PLAIN, LR, PULL)

    before, after = PLAIN.splitlines(), text.splitlines()
    assert [line for line in before if line not in after] == [before[2], before[-3], before[-2]]
    assert [line for line in after if line not in before] == [
        f"{MARK}60 trials",
        'name   = "photos-2"        # its name',
        'warm_start = "photos"',
        f"{MARK}4 of 5 above 0.005",
        "lr   = { log = [1e-4, 0.1] }              # the rate",
        f"{MARK}off is worse",
        "l2_sp = { log = [0.001, 1.0], zero = false } # a pull",
    ]
    assert after[0] == "#:schema ./tlopt.schema.json"
    assert after[after.index(f"{MARK}4 of 5 above 0.005") + 1].startswith("lr ")


def test_the_file_means_the_new_ranges_and_nothing_else() -> None:
    options = NewRange(key="augmentation", dimension=Choice((0.2, 0.5)), reason="0.7 is worse")
    depth = NewRange(key="freeze_depth", dimension=Int(0, 5), reason="above 5 worse")

    new, old = read(followed(PLAIN, LR, PULL, options, depth)), read(PLAIN)

    assert (new.name, new.warm_start) == ("photos-2", "photos")
    assert new.search == {
        "freeze_depth": Int(0, 5),
        "lr": Log(1e-4, 0.1),
        "l2_sp": Log(1e-3, 1.0),
        "augmentation": Choice((0.2, 0.5)),
    }
    assert new.model_copy(update={"name": old.name, "warm_start": "", "search": old.search}) == old


def test_a_key_is_fixed_where_its_choice_stood() -> None:
    text = followed(PLAIN, NewRange(key="augmentation", dimension=Fixed(0.5), reason="no effect"))

    assert f"{MARK}no effect\naugmentation = 0.5\n" in text


@pytest.mark.parametrize(
    "text",
    [
        f'name = "photos"\nsearch.lr = {{log = [1e-4, 1e-2]}}\n{REST}',
        f'name = "photos"\nsearch.lr.log = [1e-4, 1e-2]\n{REST}',
        f'name = "photos"\nsearch = {{ lr = {{ log = [1e-4, 1e-2] }} }}\n{REST}',
        f'name = "photos"\n{REST}[search.lr]\nlog = [\n  1e-4, # low\n  1e-2, # high\n]\n',
        f'name = "photos"\n{REST}[search]\n"lr" = {{ log = [1e-4, 1e-2] }}\n',
        f'name = "photos"\r\n{REST}[search]\r\nlr = {{ log = [1e-4, 1e-2] }}\r\n',
        f"[search]\nlr = {{ log = [1e-4, 1e-2] }}\n{REST}".replace("[search]", 'name = "photos"\n[search]'),
        f"name = '''photos'''\nwarm_start = \"older\"\n{REST}[search]\nlr={{log=[1e-4,1e-2]}}",
    ],
)
def test_every_way_to_write_a_range_is_edited(text: str) -> None:
    new = followed(text, LR)

    assert read(new).search == {"lr": Log(1e-4, 0.1)}
    assert read(new).warm_start == "photos"
    assert new.count(MARK) == 2
    assert "4 of 5 above 0.005" in new


def test_the_reasons_of_an_earlier_follow_up_are_taken_away() -> None:
    first = followed(PLAIN, LR)

    second = next_file(first, [PULL], name="photos-3", earlier="photos-2", title="30 trials")

    assert second.count(MARK) == 2
    assert "4 of 5" not in second
    assert read(second).search["lr"] == Log(1e-4, 0.1)


def test_a_text_that_looks_like_a_key_is_left_alone() -> None:
    text = PLAIN.replace('source = "photos"', 'source = """photos\n[search]\nlr = 1\n"""')

    assert read(followed(text, LR)).data.source == read(text).data.source


def test_the_backbone_is_a_key_of_its_own_table() -> None:
    text = PLAIN.replace('"resnet18"', '{ choice = ["resnet18", "resnet50"] }').replace(
        "{ int = [0, 9] }", "{ uniform = [0.0, 1.0] }"
    )

    new = followed(text, NewRange(key="backbone", dimension=Fixed("resnet50"), reason="resnet18 is worse"))

    assert read(new).model.backbones == ("resnet50",)
    assert f"{MARK}resnet18 is worse\nbackbone" in new
