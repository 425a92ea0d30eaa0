"""The list of a study's exports, kept with the study. Needs no torch."""

import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import optuna

from tlopt.storage import attributes

ExportKind = Literal["chosen", "front", "soup", "ensemble", "compact"]
_EXPORTS_MAX = 20  # listed by a study


def remember_export(
    opened: optuna.Study,
    folder: Path,
    label: str,
    kind: ExportKind,
    *,
    latency_ms: Mapping[str, float] | None = None,
) -> None:
    """Record an export with the search; one entry per folder and machine, newest last.

    Args:
        opened: the search.
        label: of the exported candidate; of other networks than its own, of the choice that they go beside.
        kind: what was exported.
        latency_ms: for one image, of a compact export and the networks that it was made from, by name.
    """
    here = {"folder": str(folder.absolute()), "host": socket.gethostname()}
    others = [row for row in opened.user_attrs.get(attributes.EXPORTS, []) if {**row, **here} != row]
    created = datetime.now(UTC).isoformat(timespec="seconds")
    newest: dict[str, Any] = {**here, "kind": kind, "label": label, "created": created}
    if latency_ms:
        newest["latency_ms"] = dict(latency_ms)
    opened.set_user_attr(attributes.EXPORTS, [*others, newest][-_EXPORTS_MAX:])
