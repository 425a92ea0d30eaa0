"""The list of a study's exports, kept with the study. Needs no torch."""

import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import optuna

from tlopt.storage import attributes

ExportKind = Literal["chosen", "front", "soup", "ensemble", "compact"]
_EXPORTS_MAX = 20  # listed by a study


def remember_export(opened: optuna.Study, folder: Path, label: str, kind: ExportKind) -> None:
    """Record an export with the search; one entry per folder and machine, newest last.

    Args:
        opened: the search.
        label: of the exported candidate; of other networks than its own, of the choice that they go beside.
        kind: what was exported.
    """
    here = {"folder": str(folder.absolute()), "host": socket.gethostname()}
    others = [row for row in opened.user_attrs.get(attributes.EXPORTS, []) if {**row, **here} != row]
    created = datetime.now(UTC).isoformat(timespec="seconds")
    newest = {**here, "kind": kind, "label": label, "created": created}
    opened.set_user_attr(attributes.EXPORTS, [*others, newest][-_EXPORTS_MAX:])
