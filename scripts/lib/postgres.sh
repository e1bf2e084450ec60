# Where PostgreSQL's server programs are. Sourced, never run.
# shellcheck shell=bash

# The majors that Turnback supports, newest first.
POSTGRES_MAJORS=(18 17 16 15 14)

# postgres_major DIR: the major version of the server programs in DIR; fails unless all that a drill needs are there.
postgres_major() {
  local dir=$1 program version
  for program in initdb postgres pg_ctl pg_basebackup pg_verifybackup pg_waldump pg_isready psql; do
    [[ -x $dir/$program ]] || return 1
  done
  version=$("$dir/postgres" --version) || return 1
  version=${version##*) }
  version=${version%%[!0-9]*}
  printf '%s\n' "$version"
}

# postgres_bindir: the directory of the newest supported server programs: Debian's and Ubuntu's place, Red Hat's, then PATH.
postgres_bindir() {
  local major dir
  for major in "${POSTGRES_MAJORS[@]}"; do
    for dir in "/usr/lib/postgresql/$major/bin" "/usr/pgsql-$major/bin"; do
      if [[ $(postgres_major "$dir" 2>/dev/null) == "$major" ]]; then
        printf '%s\n' "$dir"
        return 0
      fi
    done
  done
  dir=$(command -v postgres) || return 1
  dir=$(dirname "$(readlink -f "$dir")")
  major=$(postgres_major "$dir") || return 1
  ((major >= 14 && major <= 18)) || return 1
  printf '%s\n' "$dir"
}
