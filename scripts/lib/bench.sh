# What every benchmark needs: repeated runs, medians, ratios and one line of JSON. Sourced, never run.
# shellcheck shell=bash disable=SC2154 # scripts/bench sets bench_log

# measure VARIABLE COMMAND…: appends the command's wall time in microseconds to the array VARIABLE; its output goes to $bench_log.
measure() {
  local -n times=$1
  local begin
  shift
  begin=$(now_us)
  "$@" >>"$bench_log" 2>&1 || fail 1 "a measured command failed: $*" "its output is the end of $bench_log" "$(tail -n 5 "$bench_log")"
  times+=($(($(now_us) - begin)))
}

# median NUMBER…: the middle one, or the mean of the two in the middle.
median() {
  local sorted count=$#
  mapfile -t sorted < <(printf '%s\n' "$@" | sort -n)
  printf '%d\n' $(((sorted[(count - 1) / 2] + sorted[count / 2]) / 2))
}

# ratio A B: A / B with three decimals.
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.3f\n", a / b }'; }

# at_most A B: `true` or `false`, as JSON says it.
at_most() { awk -v a="$1" -v b="$2" 'BEGIN { print (a <= b) ? "true" : "false" }'; }

# ms US: milliseconds with one decimal.
ms() { awk -v us="$1" 'BEGIN { printf "%.1f\n", us / 1000 }'; }

# row CELL…: a line of the table for people, on stderr.
row() {
  printf '%-26s' "$1" >&2
  shift
  printf '%12s' "$@" >&2
  printf '\n' >&2
}

# table_of NAME NUMBER…: name, least, median and greatest of times in microseconds.
table_of() {
  local name=$1 sorted
  shift
  mapfile -t sorted < <(printf '%s\n' "$@" | sort -n)
  row "$name" "$(ms "${sorted[0]}")" "$(ms "$(median "$@")")" "$(ms "${sorted[-1]}")"
}

# peak_of COMMAND…: runs it and prints its own peak memory in KiB, without its children (time -v and wait4 count those in).
peak_of() {
  local pid peak=0 line
  "$@" >>"$bench_log" 2>&1 &
  pid=$!
  exec 9<> <(:)
  while kill -0 "$pid" 2>/dev/null; do
    while read -r line; do
      [[ $line == VmHWM:* ]] || continue
      line=${line//[!0-9]/}
      ((line > peak)) && peak=$line
    done <"/proc/$pid/status" 2>/dev/null || true
    read -r -t 0.01 -u 9 || true
  done
  wait "$pid" || fail 1 "a measured command failed: $*" "its output is the end of $bench_log" "$(tail -n 5 "$bench_log")"
  printf '%d\n' "$peak"
}

# write_rows DIR ROWS: a database with one large table and a bad migration for it, with the configuration to drill them.
write_rows() {
  local dir=$1 rows=$2
  cat >"$dir/load.sql" <<SQL
create table ledger (
    id bigint primary key,
    account integer not null,
    amount numeric(12, 2) not null,
    booked timestamptz not null,
    memo text
);
insert into ledger
select i, i % 1000, (i % 100000)::numeric / 100, timestamptz '2026-01-01 00:00+00' + i * interval '1 second', 'entry ' || i
  from generate_series(1, $rows) i;
SQL
  echo "update ledger set amount = amount * 10 where account < 100;" >"$dir/0002_amounts.sql"
  cat >"$dir/turnback.yaml" <<YAML
database: load.sql
migration: 0002_amounts.sql
target: time
YAML
}
