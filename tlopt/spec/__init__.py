"""The study file: TOML in, one frozen `Study` out. The names that other rooms use."""

from tlopt.spec.study import (
    NAME_PATTERN,
    SEMANTICS_VERSION,
    PerOptimizer,
    Study,
    load,
    loads,
    meaning,
)

__all__ = ["NAME_PATTERN", "SEMANTICS_VERSION", "PerOptimizer", "Study", "load", "loads", "meaning"]
