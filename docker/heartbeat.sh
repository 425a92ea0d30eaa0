#!/bin/sh
# Whether this container's worker beats. Status 0: it does, or none is at work here (another command, or a worker that
# still reads images and has not begun). Status 1: its last beat is older than so many seconds (120 unless given).
file=${TLOPT_HEARTBEAT_FILE:-}
seconds_max=${1:-120}
if [ -z "$file" ] || ! beaten=$(stat -c %Y "$file" 2>/dev/null); then
    echo "no worker beats here, and none has to"
    exit 0
fi
age=$(($(date +%s) - beaten))
echo "the last beat is $age s old, allowed are $seconds_max s"
[ "$age" -le "$seconds_max" ]
