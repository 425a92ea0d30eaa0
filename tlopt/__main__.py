"""The command `tlopt`, also as `python -m tlopt`."""

import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Run the command line; a worker that is asked to stop while it is still loading ends with status 0."""
    if sys.argv[1:2] == ["worker"]:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _end)
    from tlopt.cli.main import main as run  # takes most of a second, in which a signal may come

    run()


def _end(_number: int, _frame: FrameType | None) -> None:
    os.write(sys.stdout.fileno(), b"0 trials finished here; asked to stop\n")
    os._exit(0)


if __name__ == "__main__":
    main()
