"""Which runs of a confirmation are combined to one network: by the mean of weights, or of probabilities.

A *soup* [Wortsman et al., ICML 2022] is one network whose weights are the mean of those of several runs. An
*ensemble* runs several networks and answers with the mean of their probabilities.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tlopt.confirmation.verdict import Confirmed, Verdict
from tlopt.errors import NotReady, SpecError
from tlopt.model.build import n_blocks
from tlopt.spec.objectives import cost
from tlopt.spec.point import Point
from tlopt.system.words import counted

Kind = Literal["soup", "ensemble"]


@dataclass(frozen=True, kw_only=True)
class Member:
    """One run of a confirmation."""

    number: int  # of its candidate
    label: str  # of its candidate
    replicate: int  # index of its seed among the candidate's
    seed: int
    point: Point
    value: float  # objective on its validation images

    @property
    def words(self) -> str:
        """As in "trial 12, seed 3 of the confirmation"; the seeds count from 1."""
        return f"{self.label}, seed {self.replicate + 1} of the confirmation"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "trial": self.number,
            "label": self.label,
            "replicate": self.replicate,
            "seed": self.seed,
            "point": self.point.as_dict(),
        }


@dataclass(frozen=True, kw_only=True)
class Addition:
    """A run that was tried in a soup."""

    member: Member
    value: float  # objective of the soup with it, on validation
    kept: bool


@dataclass(frozen=True, kw_only=True)
class Combined:
    """A soup or an ensemble and its measured numbers; the first member is the network exported alone."""

    kind: Kind
    members: tuple[Member, ...]
    additions: tuple[Addition, ...] = ()  # of a soup, in their order, the first member among them
    left_out: tuple[str, ...] = ()  # runs that cannot be averaged with the first, and why
    val: Mapping[str, float] = field(default_factory=dict)  # metrics; empty if no validation images are left
    test: Mapping[str, float] = field(default_factory=dict)  # metrics; empty if there are no test images

    @property
    def is_single(self) -> bool:
        """Whether it is a soup to which no run could be added: the network that is exported alone."""
        return len(self.members) == 1

    @property
    def name(self) -> str:
        """Its key in the database: its kind, candidates and replicates, as in "soup 12/0 -1/2"."""
        return " ".join([self.kind, *(f"{member.number}/{member.replicate}" for member in self.members)])

    def as_dict(self) -> dict[str, Any]:
        """Plain values for result.json."""
        return {
            "kind": self.kind,
            "members": [member.as_dict() for member in self.members],
            "additions": [
                {
                    "trial": each.member.number,
                    "replicate": each.member.replicate,
                    "value": each.value,
                    "kept": each.kept,
                }
                for each in self.additions
            ],
            "left_out": list(self.left_out),
            "val": dict(self.val),
            "test": dict(self.test),
        }


def ensemble_members(verdict: Verdict, *, n_points: int = 0) -> tuple[Member, ...]:
    """All runs of the best `n_points` confirmed points, by default of the chosen one alone.

    Raises:
        NotReady: there are fewer than two.
    """
    runs = _runs(verdict, n_points or 1)
    first = _first(verdict)
    members = (first, *(run for run in runs if run != first))
    if len(members) < 2:
        raise NotReady(
            f"{verdict.study}: {first.label} has a single confirmed run, and an ensemble needs two; take more"
            " points with --points, or confirm with more seeds"
        )
    return members


def soup_members(
    verdict: Verdict, *, n_points: int = 0
) -> tuple[Member, tuple[Member, ...], tuple[str, ...]]:
    """The run that a soup starts from, those to be tried, best first, and the others with their reasons.

    Args:
        n_points: number of confirmed points, best first, whose runs take part; 0: all.

    Raises:
        SpecError: no run can be averaged with the chosen point's; says why.
        NotReady: no run of the confirmation completed.
    """
    first = _first(verdict)
    if why := _never_averaged(first.point):
        raise SpecError(f"{verdict.study}: the chosen point, {first.label}, makes no soup: {why}")
    others = [run for run in _runs(verdict, n_points or len(verdict.rows)) if run != first]
    reasons = {run: _mismatch(run, first, verdict.n_splits) for run in others}
    tried = [run for run in others if not reasons[run]]
    left_out = tuple(f"{run.words}: {why}" for run, why in reasons.items() if why)
    if not tried:
        said = "; ".join(left_out) or "there is no other run"
        raise SpecError(f"{verdict.study}: no run can be averaged with {first.words}: {said}")
    tried.sort(key=lambda run: cost(run.value, verdict.direction))
    return first, tuple(tried), left_out


def _first(verdict: Verdict) -> Member:
    """The run whose network is exported alone."""
    if not verdict.chosen.val:
        raise NotReady(
            f"{verdict.study}: no candidate of the confirmation completed, so there is no network to export"
        )
    return _member(verdict.chosen, verdict.exported_replicate, verdict.objective)


def _runs(verdict: Verdict, n_points: int) -> list[Member]:
    rows = [row for row in verdict.rows if row.val][:n_points]
    return [_member(row, index, verdict.objective) for row in rows for index in range(len(row.val))]


def _member(row: Confirmed, replicate: int, objective: str) -> Member:
    return Member(
        number=row.number,
        label=row.label,
        replicate=replicate,
        seed=row.seeds[replicate],
        point=row.point,
        value=row.val[replicate][objective],
    )


def _never_averaged(point: Point) -> str:
    """Why runs of `point` cannot be averaged with any other, or ""."""
    blocks = n_blocks(point.backbone)
    if point.is_linear:
        return (
            "it is a linear classifier on the features of a frozen network, of which there is one; combine"
            " such runs with --ensemble"
        )
    if point.transfer_depth < blocks:
        fresh = counted(blocks - point.transfer_depth, "block")
        return f"its last {fresh} began with other random weights for each seed, whose mean is no network"
    if point.head_layers:
        return "the hidden layers of its head began with other random weights for each seed"
    return ""


def _mismatch(run: Member, first: Member, n_splits: int) -> str:
    """Why `run` cannot be averaged with `first`, or ""."""
    ours, theirs = run.point, first.point
    if ours.backbone != theirs.backbone:
        return f"its network is {ours.backbone}, not {theirs.backbone}"
    if ours.resolution != theirs.resolution:
        return f"it was trained at {ours.resolution} pixels, not at {theirs.resolution}"
    if why := _never_averaged(ours):
        return why
    if bool(ours.head_dropout) != bool(theirs.head_dropout):
        return f"its head has {'a' if ours.head_dropout else 'no'} dropout layer, unlike the other"
    if run.replicate % n_splits != first.replicate % n_splits:
        return "it was trained on some of the images that validate the soup"
    return ""
