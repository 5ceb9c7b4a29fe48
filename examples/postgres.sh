#!/bin/sh
# postgres.sh DIRECTORY [ADDRESS]: a PostgreSQL of one's own, made there at the first start, that listens at ADDRESS, by
# default at all. As root it becomes the user postgres.
set -eu
umask 022
mkdir -p "$1"
[ -O "$1" ] || { echo "$1 is another user's" >&2 && exit 1; }
PATH=$(echo /usr/lib/postgresql/*/bin | tr ' ' :):$PATH
as=
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$1/data"
    chown postgres "$1/data"
    as='setpriv --reuid postgres --regid postgres --init-groups'
fi
cd /
if [ ! -e "$1/data/PG_VERSION" ]; then
    $as initdb -D "$1/data" -U guest -A trust --no-sync >/dev/null
    # Who may reach it is AppSwitch's to say: by ADDRESS, for 127.0.0.1 is the application's own, and by the tag grp.
    echo 'host all all 0.0.0.0/0 trust' >>"$1/data/pg_hba.conf"
fi
exec $as postgres -D "$1/data" -h "${2:-*}" -k ''
