"""One thread of torch for every worker, and places for workers on studies whose trials pause."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from pausing import EPOCHS, Pausing


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def pausing_place(
    tmp_path: Path, study_text: Callable[..., str], workshop: tiny.Workshop
) -> Callable[..., tiny.Place]:
    """A place for a worker on a study whose trials pause; keywords as for `study_text`."""

    def make(kind: Pausing, **changes: Any) -> tiny.Place:
        text = study_text(
            name=tmp_path.name, search=kind.search, epochs=EPOCHS, tables=kind.tables, **changes
        )
        return tiny.place(tiny.lighter(text, head=kind.head), workshop, tmp_path / "runs")

    return make
