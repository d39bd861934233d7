#!/bin/bash
# First start: makes the database cluster, user and database that the POSTGRES_* variables name. Then: the server.
set -euo pipefail

from_file() { # NAME: takes the value from the file that NAME_FILE names
  local file="${1}_FILE"
  if [ -n "${!file:-}" ]; then
    export "$1"="$(< "${!file}")"
  fi
}

# initdb asks for the name of the user, which one of OpenShift's does not have.
if ! getent passwd "$(id -u)" > /dev/null; then
  export LD_PRELOAD=libnss_wrapper.so NSS_WRAPPER_PASSWD=/tmp/passwd NSS_WRAPPER_GROUP=/etc/group
  echo "postgres:x:$(id -u):$(id -g)::/tmp:/bin/false" > "$NSS_WRAPPER_PASSWD"
fi

if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
  from_file POSTGRES_PASSWORD
  from_file POSTGRES_USER
  from_file POSTGRES_DB
  if [ -z "${POSTGRES_PASSWORD:-}" ]; then
    echo "The database is not initialised and POSTGRES_PASSWORD is empty: set it, or POSTGRES_PASSWORD_FILE" >&2
    exit 1
  fi
  user=${POSTGRES_USER:-postgres}
  database=${POSTGRES_DB:-$user}
  mkdir -p "$PGDATA"
  initdb --username="$user" --pwfile=<(printf '%s' "$POSTGRES_PASSWORD") \
    --auth-host=scram-sha-256 --auth-local=trust --encoding=UTF8 --locale=C.UTF-8 -D "$PGDATA"
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
  pg_ctl -D "$PGDATA" -o "-c listen_addresses=''" -w start
  if [ "$database" != postgres ]; then
    createdb --username="$user" "$database"
  fi
  for script in /docker-entrypoint-initdb.d/*; do
    case $script in
      *.sql) psql -v ON_ERROR_STOP=1 --username="$user" --dbname="$database" -f "$script" ;;
      *.sh) bash "$script" ;;
    esac
  done
  pg_ctl -D "$PGDATA" -m fast -w stop
fi
unset POSTGRES_PASSWORD LD_PRELOAD NSS_WRAPPER_PASSWD NSS_WRAPPER_GROUP
if [ "$1" = postgres ]; then
  set -- "$@" -c listen_addresses='*'
fi
exec "$@"
