"""tlopt: hyperparameter optimisation for transfer learning of image classifiers.

The functions are those of `tlopt.api`, loaded when first used: `import tlopt` needs neither torch nor Optuna.
"""

import sys
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tlopt.errors import TloptError

if TYPE_CHECKING:
    from tlopt.api import check, confirm, export, init, load, predict, report, run, train, trials

__all__ = [
    "TloptError",
    "__version__",
    "check",
    "confirm",
    "export",
    "init",
    "load",
    "predict",
    "report",
    "run",
    "train",
    "trials",
]

__version__ = version("tlopt")


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("tlopt.api"), name)
    raise AttributeError(f"module 'tlopt' has no attribute {name!r}")


class _Package(ModuleType):
    """The package, where `confirm`, `export` and `report` are functions although modules have these names.

    Importing the module tlopt.export sets an attribute of that name on the package, and calling tlopt.export
    would then call the module. `from tlopt.export import ...` does not need the attribute.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
