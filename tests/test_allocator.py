"""Memory that is freed stays with the process."""

import subprocess
import sys

import pytest

# Pages that the system clears for twenty buffers of 64 MB in turn: 16,384 each where each is new.
FAULTS = """
import resource
from tlopt.allocator import keep_freed_memory
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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_a_buffer_takes_the_pages_of_the_one_before() -> None:
    assert faults(keep=True) < faults(keep=False) / 5
