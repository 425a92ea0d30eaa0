"""Freed memory stays with the process."""

import ctypes
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tlopt.system.memory import keep_freed_memory

# Pages that the system clears for twenty buffers of 64 MB in turn: 16,384 each where each is new.
FAULTS = """
import resource
from tlopt.system.memory import keep_freed_memory
if {keep}:
    keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    bytearray(b"x") * (1 << 26)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*, keep: bool) -> int:
    run = subprocess.run(
        [sys.executable, "-c", FAULTS.format(keep=keep)], capture_output=True, text=True, check=True
    )
    return int(run.stdout)


@pytest.mark.parametrize(
    ("refused", "settings"),
    [
        ([], [(-3, (1 << 31) - 1), (-1, (1 << 31) - 1)]),
        ([(1 << 31) - 1], [(-3, (1 << 31) - 1), (-3, 1 << 25), (-1, (1 << 31) - 1)]),
        ([(1 << 31) - 1, 1 << 25], [(-3, (1 << 31) - 1), (-3, 1 << 25)]),
    ],
    ids=["glibc", "before 2.35", "neither"],
)
def test_a_c_library_that_takes_no_large_threshold_gets_a_smaller_one_or_none(
    refused: list[int], settings: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def mallopt(name: int, value: int) -> int:
        asked.append((name, value))
        return int(name == -1 or value not in refused)

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    keep_freed_memory()

    assert asked == settings


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_a_buffer_takes_the_pages_of_the_one_before() -> None:
    assert faults(keep=True) < faults(keep=False) / 5
