#!/bin/sh
# Runs `tlopt "$@"` with its exit status, but with 143 after a SIGTERM: a worker that requeues its trial exits with 0, and a
# scheduler that restarts only failed jobs would consider the work done.
asked='' child=''
trap 'asked=1; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null' TERM
tlopt "$@" &
child=$!
[ -z "$asked" ] || kill -TERM "$child"
wait "$child"
status=$?
# A signal ends `wait`, not the child.
while kill -0 "$child" 2>/dev/null; do
    wait "$child"
    status=$?
done
[ -z "$asked" ] || status=143
exit "$status"
