#!/bin/sh
# Writes files with passwords and database URLs; existing ones are kept.
#   docker/make_secrets.sh [FOLDER [HOST]]
# FOLDER: default docker/secrets, which compose.yaml reads; kubernetes/ reads docker/kubernetes/base/secrets.
# HOST: PostgreSQL's host in the URLs; default "postgres".
set -eu
folder=${1:-$(dirname "$0")/secrets}
host=${2:-postgres}
mkdir -p "$folder"
# The folder keeps other users out; the files are readable, because the container's user is not the one who wrote them.
chmod 700 "$folder"
umask 022

word() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

keep() {
    [ -s "$folder/$1" ] || printf '%s\n' "$2" >"$folder/$1"
}

keep postgres_password "$(word)"
for role in owner worker viewer; do
    user=tlopt_$role
    [ $role != owner ] || user=tlopt
    keep ${role}_password "$(word)"
    keep ${role}_url "postgresql://$user:$(cat "$folder/${role}_password")@$host:5432/tlopt"
done
keep dashboard_login "tlopt:$(word)"
echo "$folder/dashboard_login holds the dashboard's user:password"
