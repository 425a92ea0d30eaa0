#!/usr/bin/env bash
# psycopg2 does not count a session that the server ended for idling in a transaction as an OperationalError.
#
# Version: psycopg2-binary 2.9.13
# Seen:    observed: 57P05 idle session: OperationalError; 25P03 idle in transaction, 25P04 transaction too long,
#          25006 read-only: InternalError
# Why it surprises: the first three end the connection alike, and the last is what a standby answers until it is
#          promoted; a program that waits for its database on OperationalError survives one of the four. psycopg2 goes by
#          the first two signs of the SQLSTATE, and class 25 is "invalid transaction state".
# What to do: decide by `error.pgcode` and `connection.closed`, not by the class of the exception.
# Upstream: https://github.com/psycopg/psycopg/issues/988 (how psycopg 3 shows the same event)
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet 'psycopg2-binary==2.9.13'
"$work/venv/bin/python" - <<'PY'
import sys

import psycopg2
from psycopg2 import errors

WORDS = {
    "57P05": "idle session",
    "25P03": "idle in transaction",
    "25P04": "transaction too long",
    "25006": "read-only",
}
kinds = {
    code: "OperationalError" if issubclass(errors.lookup(code), psycopg2.OperationalError) else "InternalError"
    for code in WORDS
}
print("psycopg2", psycopg2.__version__.split()[0])
print("expected: one class for all that waiting, or connecting again, cures")
print("observed:", "; ".join(f"{code} {word}: {kinds[code]}" for code, word in WORDS.items()))
if set(kinds.values()) == {"OperationalError"}:
    sys.exit("changed: these are OperationalErrors; SQLSTATEs need not be looked at.")
PY
