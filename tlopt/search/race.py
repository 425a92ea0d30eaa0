"""The order of a confirmation's runs: all candidates with one seed, then half of the points with more.

Sequential halving [Karnin, Koren and Somekh, ICML 2013]: rounds end after 1, 3, 7, ... seeds, so that each
costs about as many runs as the one before. A point is judged by the mean over its runs and its trial.

Among n points with m values each, whose errors have the standard deviation s, the best point is dropped with
a probability of at most n · exp(-m · d² / (4 · s²)), where d is its true lead (Hoeffding and a union bound,
for errors with tails no heavier than those of a normal distribution). The trial's value is biased upwards,
because the point was selected by it; the final choice and all reported values leave it out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from tlopt.spec import objectives
from tlopt.spec.point import Point

PARTLY, KEPT, LINEAR, PROBE, PLAIN = range(-5, 0)  # numbers of candidates that are not trials of the search
FINALISTS_MIN = 2  # points of the search that get every seed, so that there is a final comparison

# (candidate's number, replicate); a replicate is an index of the confirmation's seeds
RunKey = tuple[int, int]


@dataclass(frozen=True)
class Candidate:
    """A point to confirm; `number` is that of its trial in the search, or one of those of defaults."""

    number: int
    label: str
    point: Point
    value: float | None = None  # of its trial in the search; None for defaults, or from an earlier version

    @property
    def is_default(self) -> bool:
        """Whether this is a default, which is never dropped because of its value."""
        return self.number < 0


@dataclass(frozen=True)
class Round:
    """Replicates of the remaining candidates."""

    members: tuple[Candidate, ...]
    replicates: range

    @property
    def runs(self) -> tuple[RunKey, ...]:
        """The round's runs in starting order: the first replicate of all candidates, then the next."""
        return tuple((member.number, replicate) for replicate in self.replicates for member in self.members)


@dataclass(frozen=True, kw_only=True)
class Race:
    """Rounds of a confirmation, as a function of the values so far that is the same in every process."""

    candidates: tuple[Candidate, ...]
    seeds: int
    direction: str  # maximize or minimize
    halves: bool = True  # False: every candidate gets all seeds, as in version 0.1

    def rounds(self, ended: Mapping[RunKey, float | None]) -> tuple[Round, ...]:
        """The rounds that may start: the first, and each whose predecessor has ended.

        Args:
            ended: values of the runs so far; None for a run without a value, whose candidate is dropped.
        """
        members, rounds = self.candidates, list[Round]()
        for replicates in self._replicates():
            if rounds:
                members = self._survivors(members, replicates.start, ended)
            rounds.append(Round(members, replicates))
            if any(run not in ended for run in rounds[-1].runs):
                break
        return tuple(rounds)

    def runs(self, ended: Mapping[RunKey, float | None]) -> tuple[RunKey, ...]:
        """The runs of the rounds that may start, including ended ones."""
        return tuple(run for each in self.rounds(ended) for run in each.runs)

    def n_open(self, ended: Mapping[RunKey, float | None]) -> int:
        """Number of runs so far, open and ended.

        Ended runs count even if their candidate would be dropped now, because others have joined since.
        """
        return len(ended.keys() | self.runs(ended))

    def n_planned(self, ended: Mapping[RunKey, float | None]) -> int:
        """Number of runs at the end, if all further runs have a value and no candidate joins.

        If candidates have joined a race that was further on, points with runs in later rounds are taken to
        stay; each new candidate that drops one of them adds runs.
        """
        rounds = self.rounds(ended)
        defaults = [member for member in rounds[-1].members if member.is_default]
        points = [member for member in rounds[-1].members if not member.is_default]
        n_points, planned = len(points), self.n_open(ended)
        for replicates in self._replicates()[len(rounds) :]:
            n_points = _halved(n_points)
            further = n_points * len(replicates) - _n_ended(points, replicates, ended)
            planned += len(defaults) * len(replicates) - _n_ended(defaults, replicates, ended)
            planned += max(0, further)
        return planned

    def dropped(self, ended: Mapping[RunKey, float | None]) -> frozenset[int]:
        """Numbers of the candidates that get no further runs."""
        left = {member.number for member in self.rounds(ended)[-1].members}
        return frozenset(each.number for each in self.candidates) - left

    def _replicates(self) -> tuple[range, ...]:
        return _halving(self.seeds) if self.halves else (range(self.seeds),)

    def _survivors(
        self, members: Sequence[Candidate], n_seeds: int, ended: Mapping[RunKey, float | None]
    ) -> tuple[Candidate, ...]:
        """The defaults, and the better half of the search's points after `n_seeds` seeds."""
        values = {
            member.number: [ended[member.number, replicate] for replicate in range(n_seeds)]
            for member in members
        }
        valued = [member for member in members if None not in values[member.number]]

        def cost(member: Candidate) -> float:
            observed = [value for value in (member.value, *values[member.number]) if value is not None]
            return objectives.cost(fmean(observed), self.direction)

        points = [member for member in members if not member.is_default]
        best = sorted((member for member in valued if not member.is_default), key=cost)[
            : _halved(len(points))
        ]
        return tuple(member for member in valued if member.is_default or member in best)


def _n_ended(members: Sequence[Candidate], replicates: range, ended: Mapping[RunKey, float | None]) -> int:
    return sum((member.number, replicate) in ended for member in members for replicate in replicates)


def n_point_runs(n_points: int, seeds: int) -> int:
    """Number of runs for the points of a search, without those for the defaults."""
    runs = 0
    for replicates in _halving(seeds):
        runs += n_points * len(replicates)
        n_points = _halved(n_points)
    return runs


def _halving(seeds: int) -> tuple[range, ...]:
    """The replicates of each round: rounds end after 1, 3, 7, ... of them, the last after all."""
    ends = [0, *(2**k - 1 for k in range(1, seeds.bit_length()) if 2**k - 1 < seeds), seeds]
    return tuple(range(first, last) for first, last in pairwise(ends))


def _halved(n_points: int) -> int:
    return min(n_points, max(FINALISTS_MIN, (n_points + 1) // 2))
