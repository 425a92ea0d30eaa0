#!/bin/sh
# Runs `tlopt "$@"`. Its status is tlopt's, but 143 where a SIGTERM has come: a worker that hands its trial back ends with 0,
# and a scheduler that starts again only what has failed would take its work for done.
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
