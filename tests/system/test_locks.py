"""A lock keeps other processes out while its own lives, and leaves no file."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tlopt.system.locks import only_process

HOLDER = """
import sys, time
from pathlib import Path
from tlopt.system.locks import only_process
with only_process(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_ends_with_its_process_however_that_ends(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "lock"
    command = [sys.executable, "-c", HOLDER, str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"

        with pytest.raises(BlockingIOError), only_process(file):
            pass
        os.kill(holder.pid, signal.SIGKILL)
    with only_process(file):
        assert file.exists()
    assert not file.exists()


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").touch()

    with pytest.raises(OSError, match="folder"), only_process(tmp_path / "folder" / "lock"):
        pass
