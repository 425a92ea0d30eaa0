"""Lines of a trial's log are complete or absent."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tlopt.worker.trial_log import TrialLog


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_trial_that_is_taken_up_again_continues_its_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "0001.jsonl"

    TrialLog(path).note("one")
    TrialLog(path).end(outcome="complete")

    assert [line["event"] for line in lines(path)] == ["note", "end"]


def test_where_no_line_can_be_written_that_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    log = TrialLog(tmp_path / "file" / "0001.jsonl")

    for _ in range(3):
        log.note("lost")

    (said,) = caplog.messages
    assert str(tmp_path / "file") in said
    assert "--runs" in said


SMALL = """
import resource, sys
from pathlib import Path
from tlopt.worker.trial_log import TrialLog
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
for index in range(100):
    TrialLog(Path(sys.argv[1])).note(f"line {index}")
"""


def test_a_line_for_which_there_is_half_the_room_is_left_out_whole(tmp_path: Path) -> None:
    path = tmp_path / "0001.jsonl"

    done = subprocess.run([sys.executable, "-c", SMALL, str(path)], capture_output=True, text=True)

    assert (done.returncode, len(done.stderr.splitlines())) == (0, 1), done.stderr
    found = [line["text"] for line in lines(path)]
    assert 10 < len(found) < 30
    assert found == [f"line {index}" for index in range(len(found))]
