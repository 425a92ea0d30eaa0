"""`python killed_prune.py PLACE N ARGUMENTS...`: `tlopt ARGUMENTS...`, killed the Nth time it is there."""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any


def killed(n: int, call: Callable[..., Any]) -> Callable[..., Any]:
    """`call`, whose Nth time never happens because its process is killed."""
    times = iter(range(1, n + 1))

    def planted(*given: Any, **named: Any) -> Any:
        if next(times) == n:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*given, **named)

    return planted


def plant(place: str, n: int) -> None:
    """Kill this process the Nth time that it is at `place`."""
    from tlopt.app.compact import pruning_state
    from tlopt.compact import prune
    from tlopt.exports import compact as exports
    from tlopt.system import atomic
    from tlopt.training import loop

    owner, name = {
        "step": (loop, "take_step"),
        "saving": (atomic, "sync"),
        "removal": (prune, "_next_removal"),
        "measuring": (prune, "_measured"),
        "exporting": (exports, "write_program"),
        "removing the state": (pruning_state.PruningState, "remove"),
    }[place]
    setattr(owner, name, killed(n, getattr(owner, name)))


if __name__ == "__main__":
    place, n, *arguments = sys.argv[1:]
    plant(place, int(n))
    sys.argv = ["tlopt", *arguments]
    from tlopt.cli.main import main

    main()
