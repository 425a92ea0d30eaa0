#!/usr/bin/env bash
# On SQLite one enqueued trial goes to several workers, and nobody is told.
#
# Version: optuna 5.0.0, SQLAlchemy 2.1.9, the SQLite of the Python that runs this
# Seen:    observed: 40 of 40 calls answered, with 31 different trials; 5 trials went to several workers (counts vary)
# Why it surprises: ask() takes a waiting trial by SELECT ... FOR UPDATE, which SQLAlchemy leaves out for SQLite, and
#          Python's driver begins no transaction before the first write: all see the trial WAITING, and all set
#          it RUNNING. Both train; the second tell() fails, or the first result is what counts.
# What to do: begin every transaction with BEGIN IMMEDIATE (SQLAlchemy's events "connect" and "begin"), use a
#          JournalStorage, or a database server. Optuna's documentation advises against SQLite for parallel studies.
# Upstream: https://github.com/optuna/optuna/issues/4002
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet 'optuna==5.0.0' 'sqlalchemy==2.1.9'
cat >"$work/race.py" <<'PY'
import collections
import multiprocessing
import sqlite3
import sys

import optuna

WORKERS, EACH, ROUNDS = 4, 10, 10
optuna.logging.set_verbosity(optuna.logging.ERROR)


def ask(url, name, start, answers):
    study = optuna.load_study(study_name=name, storage=url)
    start.wait(60)
    answers.put([study.ask().number for _ in range(EACH)])


def main(url):
    context = multiprocessing.get_context("spawn")
    print(f"optuna {optuna.__version__}, SQLite {sqlite3.sqlite_version}")
    print("expected: every enqueued trial goes to one worker")
    for attempt in range(ROUNDS):
        study = optuna.create_study(study_name=f"round {attempt}", storage=url)
        for x in range(WORKERS * EACH):
            study.enqueue_trial({"x": x})
        start, answers = context.Barrier(WORKERS), context.Queue()
        arguments = (url, study.study_name, start, answers)
        workers = [context.Process(target=ask, args=arguments) for _ in range(WORKERS)]
        for worker in workers:
            worker.start()
        counts = collections.Counter(number for _ in workers for number in answers.get(timeout=120))
        for worker in workers:
            worker.join()
        several = sum(count > 1 for count in counts.values())
        print(
            f"observed: {counts.total()} of {WORKERS * EACH} calls answered, with {len(counts)} different trials;"
            f" {several} trials went to several workers"
        )
        if several:
            return
    sys.exit(f"changed: no trial went to two workers in {ROUNDS} rounds; BEGIN IMMEDIATE may not be needed.")


if __name__ == "__main__":
    main(sys.argv[1])
PY
"$work/venv/bin/python" -W ignore "$work/race.py" "sqlite:///$work/study.db"
