"""Tables of the commands leave room for what they are read for, in a terminal of 80 columns."""

import io

import pytest
from finished import make_point, make_row, make_verdict
from rich.console import Console

from tlopt.analysis.snapshot import WorkerRow
from tlopt.app import tables
from tlopt.spec.default_names import KEPT_LABEL


def shown(width: int) -> str:
    """The table of candidates as a terminal of `width` columns shows it."""
    kept = make_point(transfer_depth=17, norm_depth=17, lr=0.001, lr_ratio=0.3, l2=0.02)
    long = make_row(KEPT_LABEL, (0.9, 0.91, 0.92), (0.9, 0.9, 0.9), point=kept, number=-4)
    out = Console(file=io.StringIO(), width=width)
    out.print(tables.verdict_table(make_verdict((long, make_row("trial 8", (0.8, 0.8, 0.8), (), number=8)))))
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def test_a_confirmation_reads_test_only_where_images_are_held_out() -> None:
    assert tables.confirm_words(9) == "trains the best points again, then reads test once"
    assert tables.confirm_words(0) == "trains the best points again, without a test: no images are held out"


def test_a_long_label_leaves_room_for_the_points() -> None:
    text = shown(80)

    assert "…" not in text
    assert "keep 17 freeze" in text
    assert KEPT_LABEL not in text
    assert KEPT_LABEL in shown(160), "nothing is broken where there is room"


@pytest.mark.parametrize(("epoch", "words"), [(0, "1 of 2"), (1, "2 of 2"), (2, "2 of 2")])
def test_a_worker_is_in_no_epoch_after_the_last(epoch: int, words: str) -> None:
    row = WorkerRow(
        name="here:1", device="cpu", study="planted", trial=1, epoch=epoch, epochs=2, step=0, steps=9,
        silent_seconds=0.0,
    )  # fmt: skip
    out = Console(file=io.StringIO(), width=80)
    out.print(tables.workers_table([row]))

    assert isinstance(out.file, io.StringIO)
    assert words in out.file.getvalue()
