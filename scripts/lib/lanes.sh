# The lanes of scripts/test. Each is a function that returns 0 where all of it held; lanes that count their own tests add to lane_passed and
# lane_failed. Sourced, never run. Needs root, work and turnback.
# shellcheck shell=bash disable=SC2034,SC2154

declare -A LANE_TITLE=(
  [scripts]="every shell script parses"
  [format]="cargo fmt --all --check"
  [lints]="cargo clippy, warnings are errors"
  [build]="cargo build --release --locked"
  [tests]="unit and integration tests, on real PostgreSQL"
  [drills]="the shipped features, each to a verdict"
  [contract]="exit codes and streams of the command line"
  [kit]="what a kind cluster takes where no image registry is reached: half an hour the first time"
  [kind]="the adapters and the shipped drill on a real cluster with Flux and CloudNativePG"
)

# The release profile everywhere, so that dependencies are compiled once.
lane_scripts() {
  local file
  for file in scripts/drill scripts/test scripts/bench scripts/lib/*.sh scripts/bench.d/*.sh scripts/offline/kit scripts/offline/*.sh scripts/offline/bounded-runc .ci/run; do
    bash -n "$file" || return 1
  done
}

lane_format() {
  cargo fmt --version >/dev/null 2>&1 || {
    say "   rustfmt is not here: rustup component add rustfmt"
    return 1
  }
  cargo fmt --all --check
}

lane_lints() {
  cargo clippy --version >/dev/null 2>&1 || {
    say "   clippy is not here: rustup component add clippy"
    return 1
  }
  cargo clippy --release --workspace --all-targets --locked -- -D warnings
}

lane_build() { cargo build --release --workspace --locked; }

lane_tests() {
  local log=$work/tests.log status=0 counts ignored
  # The tests' hundreds of servers live where $work is; the drills' lane uses the usual place.
  # INSTA_UPDATE: a snapshot that changed fails the test instead of being written anew.
  TMPDIR=$work INSTA_UPDATE=no cargo test --release --workspace --locked --no-fail-fast 2>&1 | tee "$log" || status=$?
  counts=$(awk '/^test result:/ { p += $4; f += $6; i += $8 } END { printf "%d %d %d", p, f, i }' "$log")
  read -r lane_passed lane_failed ignored <<<"$counts"
  if ((ignored > 0)); then
    say "   $ignored tests were ignored; an ignored test shows nothing, so it counts as failed"
    lane_failed=$((lane_failed + ignored))
  fi
  if ((lane_passed + lane_failed == 0)); then
    say "   not one test ran"
    return 1
  fi
  return "$status"
}

# counted NAME COMMAND…: one test of this lane, by the command's exit status.
counted() {
  local name=$1 begin
  shift
  begin=$(now_us)
  if "$@" >"$work/counted.log" 2>&1; then
    lane_passed=$((lane_passed + 1))
    say "   ok      $name ($(span $(($(now_us) - begin))))"
  else
    lane_failed=$((lane_failed + 1))
    say "   FAILED  $name ($(span $(($(now_us) - begin))))"
    sed 's/^/      | /' "$work/counted.log" >&2
  fi
}

# built: whether there is an executable to try.
built() {
  [[ -x $turnback ]] || {
    say "   $turnback is not built, so this lane cannot run"
    return 1
  }
}

# ends_go FEATURE DIR: the feature runs to GO and its evidence says so.
ends_go() {
  "$turnback" run "$1" --on local --evidence "$2" "${@:3}" || return 1
  [[ -n $(find "$2" -name evidence.json) ]] || {
    echo "no evidence.json below $2"
    return 1
  }
}

# own_config: a database and a migration of one's own, and the file that names them.
own_config() {
  mkdir -p "$work/own"
  printf '%s\n' 'CREATE TABLE shop (id int PRIMARY KEY, price int NOT NULL);' 'INSERT INTO shop SELECT g, g FROM generate_series(1, 100) g;' \
    >"$work/own/shop.sql"
  printf '%s\n' 'UPDATE shop SET price = 0;' >"$work/own/0002_free.sql"
  printf '%s\n' 'database: shop.sql' 'migration: 0002_free.sql' 'target: lsn' >"$work/own/turnback.yaml"
  printf '%s' "$work/own/turnback.yaml"
}

lane_drills() {
  built || return 1
  local feature name
  counted "turnback doctor" "$turnback" doctor
  for feature in features/*.feature; do
    name=${feature##*/}
    # What reads turnback.yaml gets one; the others must do without.
    if grep -q 'configured' "$feature"; then
      counted "$name ends GO" ends_go "$feature" "$work/evidence-${name%.feature}" --config "$(own_config)"
    else
      counted "$name ends GO" ends_go "$feature" "$work/evidence-${name%.feature}"
    fi
  done
  counted "the default drill ends GO" "$turnback" run --evidence "$work/evidence-default"
}

# exits STATUS COMMAND…: ends with exactly that status, with stdout empty where it is an error of usage.
exits() {
  local wanted=$1 status=0
  shift
  "$@" >"$work/stdout" 2>"$work/stderr" </dev/null || status=$?
  ((status == wanted)) || {
    echo "exit status $status instead of $wanted: $*"
    cat "$work/stdout" "$work/stderr"
    return 1
  }
  if ((wanted == 2)); then
    [[ ! -s $work/stdout ]] || { echo "an error of usage wrote to stdout: $*"; return 1; }
    [[ -s $work/stderr ]] || { echo "an error of usage said nothing: $*"; return 1; }
  fi
}

# documents STATUS COMMAND…: ends with exactly that status, and all that it prints is one JSON document that repeats the status.
documents() {
  local wanted=$1 status=0
  shift
  "$@" >"$work/stdout" 2>"$work/stderr" </dev/null || status=$?
  ((status == wanted)) || { echo "exit status $status instead of $wanted: $*"; return 1; }
  [[ ! -s $work/stderr && $(wc -l <"$work/stdout") == 1 ]] || { echo "more than one document: $*"; return 1; }
  grep -q "^{\"exit\":$wanted," "$work/stdout" || { echo "no document with its status: $*"; cat "$work/stdout"; return 1; }
}

lane_contract() {
  built || return 1
  local command
  counted "--version is 0" exits 0 "$turnback" --version
  counted "--help is 0" exits 0 "$turnback" --help
  for command in run plan restore snapshot compare lint vocabulary doctor clean; do
    counted "$command --help is 0" exits 0 "$turnback" "$command" --help
  done
  counted "vocabulary is 0" exits 0 "$turnback" vocabulary
  counted "lint of the shipped features is 0" exits 0 "$turnback" lint features/*.feature
  counted "no command is 2" exits 2 "$turnback"
  counted "an unknown command is 2" exits 2 "$turnback" rollback
  counted "an unknown option is 2" exits 2 "$turnback" run --no-such-option
  counted "a missing feature is 2" exits 2 "$turnback" run "$work/missing.feature"
  counted "a missing feature is a document with --json" documents 2 "$turnback" run --json "$work/missing.feature"
  counted "an unknown option is 2 with --json too" exits 2 "$turnback" run --json --no-such-option
}

lane_kit() {
  scripts/offline/kit build && scripts/offline/kit load
}

lane_kind() {
  built || return 1
  counted "the adapters on one cluster" cargo test --release --locked --test kind -- --nocapture
  counted "data_rollback.feature ends GO on kind" ends_go_on_kind features/data_rollback.feature "$work/evidence-kind"
}

# ends_go_on_kind FEATURE DIR: the same feature file, on a cluster that is there for it alone.
ends_go_on_kind() {
  "$turnback" run "$1" --on kind --evidence "$2" || return 1
  [[ -n $(find "$2" -name evidence.json) ]] || {
    echo "no evidence.json below $2"
    return 1
  }
}
