"""Study files for the benchmarks, written from tables."""

from collections.abc import Mapping
from typing import Any

import tomlkit

Table = Mapping[str, Any]

ANY_DEPTH = {"uniform": [0.0, 1.0]}  # any share of the blocks
FASTEST = {"precision": "auto", "layout": "auto"}  # keys of [model]: numerics measured on this machine


def study_text(
    name: str,
    *,
    data: Table,
    model: Table,
    budget: Table,
    search: Table,
    more: Table | None = None,
) -> str:
    """The text of a study file.

    Args:
        name: The study's name.
        data: [data]; `source` may be a path.
        model: [model].
        budget: [budget].
        search: [search].
        more: Further keys and tables: `seed`, `objective`, `sampler`, `pruner`, `service`.
    """
    top = {key: value for key, value in (more or {}).items() if not isinstance(value, Mapping)}
    tables = {key: value for key, value in (more or {}).items() if isinstance(value, Mapping)}
    known = {
        "data": {**data, "source": str(data["source"])},
        "model": model,
        "budget": budget,
        "search": search,
    }
    return tomlkit.dumps({"name": name, **top, **known, **tables})
