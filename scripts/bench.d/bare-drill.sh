#!/usr/bin/env bash
# The PostgreSQL work of one drill and nothing else: what `turnback run` is measured against.
#
# initdb, start, load, base backup, the bad migration, switch WAL, restore to the moment before, promote, read every table back, remove.
# No proof, no comparison, no Git, no application. It waits as quickly as is sensible (10 ms) and keeps nothing, so its servers end
# immediately. Same settings as the drill's own servers.
#
#   bare-drill.sh CHANGE.sql LOAD.sql…
#
# stdout: one line of JSON with the milliseconds of each part and the total.
set -euo pipefail

here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# shellcheck source-path=SCRIPTDIR source=../lib/say.sh
source "$here/../lib/say.sh"
# shellcheck source-path=SCRIPTDIR source=../lib/postgres.sh
source "$here/../lib/postgres.sh"

(($# >= 2)) || fail 2 "bare-drill.sh needs the bad migration and at least one file to load" "bare-drill.sh CHANGE.sql LOAD.sql…"
bin=${PGBIN:-$(postgres_bindir)} || fail 2 "no PostgreSQL 14 to 18 server programs found" "scripts/drill installs them"

# PostgreSQL refuses to run as root: the whole script then runs as the unprivileged account, once, so that no part pays for it.
if ((EUID == 0)) && [[ -z ${BARE_WORK:-} ]]; then
  account=postgres
  id "$account" >/dev/null 2>&1 || account=nobody
  BARE_WORK=$(mktemp -d "${TMPDIR:-/tmp}/bare-drill.XXXXXX")
  copy=$BARE_WORK/sql
  mkdir "$copy"
  cp -r "$here/.." "$BARE_WORK/scripts"
  files=()
  for file in "$@"; do
    cp "$file" "$copy/${#files[@]}.sql"
    files+=("$copy/${#files[@]}.sql")
  done
  chown -R "$account" "$BARE_WORK"
  trap 'rm -rf "$BARE_WORK"' EXIT
  cd "$BARE_WORK"
  status=0
  export BARE_WORK PGBIN=$bin
  setpriv --reuid "$account" --regid "$(id -g "$account")" --init-groups \
    "$BARE_WORK/scripts/bench.d/bare-drill.sh" "${files[@]}" || status=$?
  exit "$status"
fi

work=${BARE_WORK:-$(mktemp -d "${TMPDIR:-/tmp}/bare-drill.XXXXXX")}
export PGHOST=$work PGDATABASE=postgres PGUSER=turnback PGCONNECT_TIMEOUT=10
primary='' restored=''
finish() {
  local pid
  for pid in $primary $restored; do kill -QUIT "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  [[ -n ${BARE_WORK:-} ]] || rm -rf "$work"
}
trap finish EXIT

exec 9<> <(:)
# until_true SECONDS WHAT COMMAND…: asks every 10 ms.
until_true() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    ((SECONDS < deadline)) || fail 1 "waited in vain for $what" "read $work/*.log (BARE_WORK keeps it)"
    read -r -t 0.01 -u 9 || true
  done
}
ready() { "$bin/pg_isready" -q -p "$1"; }
recovered() { [[ ! -e $work/restored/recovery.signal ]]; }
sql() { "$bin/psql" -X -q -A -t -v ON_ERROR_STOP=1 -p "$@"; }

parts='' part_begin=$(now_us) begin=$part_begin
part() {
  local end
  end=$(now_us)
  parts+="\"$1\":$(((end - part_begin) / 1000)),"
  part_begin=$end
}

"$bin/initdb" --pgdata="$work/primary" --username=turnback --auth=trust --encoding=UTF8 --locale=C --data-checksums --no-sync \
  --no-instructions >"$work/initdb.log"
mkdir "$work/archive"
cat >>"$work/primary/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$work'
fsync = off
wal_level = replica
archive_mode = on
archive_command = 'test ! -f $work/archive/%f && cp %p $work/archive/.%f && mv $work/archive/.%f $work/archive/%f'
CONF
part initdb

"$bin/postgres" -D "$work/primary" -p 5432 >"$work/primary.log" 2>&1 &
primary=$!
until_true 60 "the primary" ready 5432
part start

change=$1
shift
for file in "$@"; do sql 5432 -f "$file" >/dev/null; done
part load

"$bin/pg_basebackup" -p 5432 -D "$work/backup" --checkpoint=fast --wal-method=stream --no-sync
part backup

target=$(sql 5432 -c "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00'")
sql 5432 -f "$change" >/dev/null
part migrate

segment=$(sql 5432 -c "select pg_logical_emit_message(true, 'bare', 'sentinel')" -c "select pg_walfile_name(pg_switch_wal())" | tail -n 1)
until_true 60 "the archive to hold $segment" test -e "$work/archive/$segment"
part switch_wal

cp -a --reflink=auto "$work/backup" "$work/restored"
cat >>"$work/restored/postgresql.conf" <<CONF
archive_mode = off
restore_command = 'cp $work/archive/%f %p'
recovery_target_time = '$target'
recovery_target_action = 'promote'
CONF
touch "$work/restored/recovery.signal"
part copy

"$bin/postgres" -D "$work/restored" -p 5433 >"$work/restored.log" 2>&1 &
restored=$!
until_true 600 "the end of recovery" recovered
until_true 60 "the restored server" ready 5433
part recover

sql 5433 -o /dev/null <<'SQL'
select format('copy %s to stdout', oid::regclass) from pg_class
 where relkind = 'r' and relnamespace not in ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
\gexec
SQL
part read

kill -QUIT "$primary" "$restored"
wait "$primary" "$restored" 2>/dev/null || true
primary='' restored=''
rm -rf "$work/primary" "$work/restored" "$work/backup" "$work/archive"
part remove

printf '{%s"total":%d}\n' "$parts" $((($(now_us) - begin) / 1000))
