"""A verdict as JSON: what `result.json` of an export and `tlopt status --json` hold."""

import math
from typing import Any

from tlopt.confirmation.evidence import Lead
from tlopt.confirmation.verdict import SPLITS, Confirmed, SplitName, Verdict
from tlopt.spec.default_names import PLAIN_LABEL, PROBE_LABEL
from tlopt.spec.point import Point


def as_dict(verdict: Verdict) -> dict[str, Any]:
    """All numbers by candidate, as written to result.json."""
    return {
        "study": verdict.study,
        "objective": verdict.objective,
        "direction": verdict.direction,
        "chosen": verdict.chosen.label,
        "defaults": list(verdict.defaults),  # a chosen one, then the strongest on validation
        "test_readings": verdict.test_readings,
        "candidates": [
            {
                "label": row.label,
                "trial": row.number,
                "seeds": list(row.seeds),
                "val": list(row.val),
                "test": list(row.test),
                "dropped": row.dropped,
                **({"inference_cost": dict(row.inference_cost)} if verdict.cost_names else {}),
                "point": row.point.as_dict(),
            }
            for row in verdict.rows
        ],
        "gain": {
            label: {split: _gain(verdict, label, split) for split in SPLITS}
            for label in dict.fromkeys((*verdict.defaults, PROBE_LABEL, PLAIN_LABEL))
        },
        "n_images": dict(verdict.n_images),
        "n_splits": verdict.n_splits,
        "odds_min": verdict.odds_min,
        "preferred": verdict.preferred,
        **_front(verdict),
        **({"cost_limits": dict(verdict.cost_limits)} if verdict.cost_limits else {}),
        "lead": _lead(verdict.lead),
        "default_lead": _lead(verdict.default_lead),  # over the chosen, preferred one
    }


def from_dict(values: dict[str, Any]) -> Verdict:
    """The verdict that `as_dict` wrote."""
    rows = tuple(
        Confirmed(
            number=row["trial"],
            label=row["label"],
            point=Point.stored(row["point"], f"{row['label']} in the export of {values['study']}"),
            seeds=tuple(row["seeds"]),
            val=tuple(row["val"]),
            test=tuple(row["test"]),
            dropped=row.get("dropped", False),
            inference_cost=row.get("inference_cost", {}),
        )
        for row in values["candidates"]
    )
    n_runs = sum(len(row.seeds) for row in rows)
    return Verdict(
        study=values["study"],
        objective=values["objective"],
        direction=values["direction"],
        rows=rows,
        n_expected=n_runs,
        n_finished=n_runs,
        test_readings=values["test_readings"],
        n_images=values.get("n_images", {}),
        n_splits=values.get("n_splits", 1),
        odds_min=values.get("odds_min", 0.0),
        preferred=values.get("preferred", ""),
        cost_objectives=tuple(values.get("cost_objectives", ())),
        cost_limits=values.get("cost_limits", {}),
    )


def _front(verdict: Verdict) -> dict[str, Any]:
    if not verdict.cost_objectives:
        return {}
    costs = list(verdict.cost_objectives)
    return {"cost_objectives": costs, "front": [row.label for row in verdict.front]}


def _lead(lead: Lead | None) -> dict[str, Any] | None:
    if lead is None:
        return None
    odds = None if math.isinf(lead.odds) else lead.odds
    return {
        "label": lead.point,
        "default": lead.over,
        "mean": lead.mean,
        "std_error": lead.std_error,
        "odds": odds,
    }


def _gain(verdict: Verdict, label: str, split: SplitName) -> dict[str, Any] | None:
    gain = verdict.gain(label, split=split)
    if gain is None:
        return None
    return {
        "mean": gain.mean,
        "std": None if math.isnan(gain.std) else gain.std,
        "n": gain.n,
        "interval": gain.interval,
        "standing": verdict.standing(label, split=split),
    }
