#!/bin/sh
# Health check of the container's worker. Status 0: its heartbeat is recent, or no worker runs (another command, or a worker
# that is still reading images). Status 1: the last heartbeat is older than the given number of seconds (default: 120).
file=${TLOPT_HEARTBEAT_FILE:-}
seconds_max=${1:-120}
if [ -z "$file" ] || ! renewed=$(stat -c %Y "$file" 2>/dev/null); then
    echo "no worker is running, so no heartbeat is expected"
    exit 0
fi
age=$(($(date +%s) - renewed))
echo "the last heartbeat is $age s old; $seconds_max s are allowed"
[ "$age" -le "$seconds_max" ]
