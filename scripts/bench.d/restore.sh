# The database, backup and WAL archive that `scripts/bench restore` restores from. Sourced by scripts/bench, never run.
# shellcheck shell=bash disable=SC2034,SC2154 # scripts/bench sets bench_log and reads restore_command and restore_mb

# as_server COMMAND…: as the account that PostgreSQL runs under, which is never root.
as_server() {
  if ((EUID == 0)); then
    local account=postgres
    id "$account" >/dev/null 2>&1 || account=nobody
    setpriv --reuid "$account" --regid "$(id -g "$account")" --init-groups "$@"
  else
    "$@"
  fi
}

# prepare_restore WORK BIN TURNBACK: a 40 MB database with its base backup, its known-good snapshot and a WAL archive that reaches past the
# recovery point. Sets restore_command (without --evidence) and restore_mb.
prepare_restore() {
  local work=$1 bin=$2 turnback=$3 target server segment
  local data=$work/server
  mkdir -m 700 "$data"
  ((EUID != 0)) || chown "$(as_server id -u):$(as_server id -g)" "$data"
  server=(-h "$data" -p 5432 -U turnback)
  as_server "$bin/initdb" --pgdata="$data/primary" --username=turnback --auth=trust --encoding=UTF8 --locale=C --data-checksums --no-sync \
    --no-instructions >>"$bench_log"
  as_server mkdir "$data/archive"
  as_server tee -a "$data/primary/postgresql.conf" >/dev/null <<CONF
listen_addresses = ''
unix_socket_directories = '$data'
fsync = off
archive_mode = on
archive_command = 'test ! -f $data/archive/%f && cp %p $data/archive/.%f && mv $data/archive/.%f $data/archive/%f'
CONF
  as_server "$bin/pg_ctl" start --wait --silent -D "$data/primary" -l "$data/primary.log"
  # shellcheck disable=SC2064 # both are known now
  trap "as_server '$bin/pg_ctl' stop --silent -m immediate -D '$data/primary' 2>/dev/null || true; rm -rf '$work'" EXIT
  bench_sql() { "$bin/psql" -X -q -A -t -v ON_ERROR_STOP=1 "${server[@]}" -d postgres "$@"; }
  # 330,000 rows of the large table make 32 MB, which with the catalogs is a database of 40 MB.
  write_rows "$work" 330000
  bench_sql -f "$work/load.sql"
  restore_mb=$(bench_sql -c "select pg_database_size(current_database()) / 1000000")
  as_server "$bin/pg_basebackup" "${server[@]}" -D "$data/backup" --checkpoint=fast --wal-method=stream --no-sync
  "$turnback" snapshot "postgresql://turnback@localhost:5432/postgres?host=$data" --out "$work/known-good" >>"$bench_log" 2>&1 ||
    fail 1 "turnback snapshot failed" "$(tail -n 5 "$bench_log")"
  target=$(bench_sql -c "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00'")
  bench_sql -f "$work/0002_amounts.sql"
  segment=$(bench_sql -c "select pg_logical_emit_message(true, 'bench', 'sentinel')" \
    -c "select pg_walfile_name(pg_switch_wal())" | tail -n 1)
  for ((i = 0; i < 1000; i++)); do
    [[ ! -e $data/archive/$segment ]] || break
    read -r -t 0.01 <> <(:) || true
  done
  [[ -e $data/archive/$segment ]] || fail 1 "WAL segment $segment was not archived within 10 s" "$(as_server tail -n 5 "$data/primary.log")"
  as_server "$bin/pg_ctl" stop --silent -m fast -D "$data/primary"
  restore_command=("$turnback" restore --backup "$data/backup" --wal-archive "$data/archive" --target "time=$target"
    --user turnback --baseline "$work/known-good")
}
