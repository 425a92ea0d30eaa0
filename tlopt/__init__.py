"""tlopt: hyperparameter optimisation for transfer learning of image classifiers.

The functions are those of `tlopt.api`, loaded when first used: `import tlopt` needs neither torch nor Optuna.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tlopt.errors import TloptError

if TYPE_CHECKING:
    from tlopt.api import (
        check,
        confirm,
        cost,
        export,
        follow_up,
        init,
        load,
        load_model,
        open_study,
        predict,
        prune,
        report,
        run,
        run_grid,
        train,
        trials,
    )

__all__ = [
    "TloptError",
    "__version__",
    "check",
    "confirm",
    "cost",
    "export",
    "follow_up",
    "init",
    "load",
    "load_model",
    "open_study",
    "predict",
    "prune",
    "report",
    "run",
    "run_grid",
    "train",
    "trials",
]

__version__: str


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # takes a tenth of a second, in which a signal may come

        return version("tlopt")
    if name in __all__:
        return getattr(import_module("tlopt.api"), name)
    raise AttributeError(f"module 'tlopt' has no attribute {name!r}")
