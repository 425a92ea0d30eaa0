"""Pruning by the front, replayed on the courses of a study that was trained without pruning.

python -m benchmarks.front.trained STUDY.toml --storage sqlite:///tlopt.db
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna

from tlopt import spec
from tlopt.search.front import Course, front_trials, hypervolumes, is_beaten
from tlopt.spec import Study
from tlopt.spec.algorithms import FrontPruner
from tlopt.storage.attributes import TrialRecord, curve_of, records_of
from tlopt.storage.studies import open_to_read

MARGINS = (1.0, 1.5, 2.0, 3.0)


@dataclass(frozen=True)
class Trained:
    """A trial of the study, with its course to the end."""

    record: TrialRecord
    course: Course


def trained(study: Study, url: str) -> list[Trained]:
    """The study's trials that were trained to their end, by number."""
    opened = optuna.load_study(study_name=study.name, storage=open_to_read(url))
    curves = {trial.number: curve_of(trial) for trial in opened.get_trials()}
    found = []
    for record in records_of(opened):
        if record.has_value and record.values is not None:
            values = tuple(curves[record.number].values())
            found.append(Trained(record, Course(values=values, costs=tuple(record.values[1:]))))
    return found


def replay(trials: Sequence[Trained], spec: FrontPruner) -> tuple[int, list[Trained]]:
    """Epochs that the rule trains, and the trials that it trains to their end; defaults always are."""
    n_epochs, ended = 0, list[Trained]()
    for trial in trials:
        complete = [other.course for other in ended]
        for n in range(1, len(trial.course.values) + 1):
            n_epochs += 1
            so_far = Course(values=trial.course.values[:n], costs=trial.course.costs)
            may_stop = n < len(trial.course.values) and not trial.record.label
            if may_stop and is_beaten(so_far, complete, spec):
                break
        else:
            ended.append(trial)
    return n_epochs, ended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path, help="its file")
    parser.add_argument("--storage", default="sqlite:///tlopt.db", help="its database")
    given = parser.parse_args()
    study = spec.load(given.study)
    trials = trained(study, given.storage)
    front = {record.number for record in front_trials([each.record for each in trials], study)}
    whole = _hypervolume([each.record for each in trials], study)
    print("| deviations | epochs | stopped | front points lost | hypervolume lost |")
    print("| --- | --: | --: | --: | --: |")
    n_whole = sum(len(each.course.values) for each in trials)
    print(f"| no pruning | {n_whole} | 0 of {len(trials)} | 0 of {len(front)} | 0 % |")
    for margin in MARGINS:
        n_epochs, ended = replay(trials, FrontPruner(margin=margin))
        kept = [each.record for each in ended]
        n_lost = len(front - {record.number for record in kept})
        lost = 1 - _hypervolume(kept, study) / whole
        print(
            f"| {margin:g} | {n_epochs} | {len(trials) - len(kept)} of {len(trials)}"
            f" | {n_lost} of {len(front)} | {100 * lost:.2f} % |"
        )


def _hypervolume(records: Sequence[TrialRecord], study: Study) -> float:
    return list(hypervolumes(records, study).values())[-1]


if __name__ == "__main__":
    main()
