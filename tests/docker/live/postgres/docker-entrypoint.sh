#!/bin/sh
# What docker-compose.yml relies on of the official image: a cluster, a user and a database at the first start.
set -eu
data=/var/lib/postgresql/data
as_postgres() { setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; }
mkdir -p "$data" && chown postgres:postgres "$data"
mkdir -p /run/postgresql && chown postgres:postgres /run/postgresql
if [ ! -s "$data/PG_VERSION" ]; then
    if [ -n "${POSTGRES_PASSWORD:-}" ]; then printf %s "$POSTGRES_PASSWORD"; else cat "$POSTGRES_PASSWORD_FILE"; fi > /run/password
    chown postgres /run/password
    as_postgres initdb --pgdata="$data" --username="$POSTGRES_USER" --pwfile=/run/password --auth-host=scram-sha-256 --auth-local=trust
    rm /run/password
    echo "host all all all scram-sha-256" >> "$data/pg_hba.conf"
    as_postgres pg_ctl --pgdata="$data" --wait --options="-c listen_addresses=" start
    as_postgres createdb --username="$POSTGRES_USER" "$POSTGRES_DB"
    as_postgres pg_ctl --pgdata="$data" --wait stop
fi
[ "${1:-}" != postgres ] || shift
exec setpriv --reuid=postgres --regid=postgres --clear-groups postgres -D "$data" -c listen_addresses='*' "$@"
