# Messages and times for the scripts beside this directory. Sourced, never run.
#
# Everything here goes to stderr: stdout belongs to the program that a script ends in.
# shellcheck shell=bash

# say WORDS…: one plain line.
say() { printf '%s\n' "$*" >&2; }

# fail STATUS MESSAGE [HINT…]: what is wrong, what to do next, and out.
fail() {
  local status=$1 hint
  shift
  say "error: $1"
  shift
  for hint in "$@"; do say "  hint: $hint"; done
  exit "$status"
}

# now_us: a moment in microseconds, for durations.
now_us() { printf '%s\n' "${EPOCHREALTIME/[.,]/}"; }

# span US: a duration as a person reads it.
span() {
  local us=$1
  if ((us < 10000000)); then printf '%d.%02d s\n' $((us / 1000000)) $((us / 10000 % 100))
  elif ((us < 60000000)); then printf '%d.%d s\n' $((us / 1000000)) $((us / 100000 % 10))
  else printf '%d min %d s\n' $((us / 60000000)) $((us / 1000000 % 60)); fi
}

# timed LABEL COMMAND…: runs it with its output on stderr and says how long it took; its exit status is the command's.
timed() {
  local label=$1 begin status=0
  shift
  begin=$(now_us)
  say "== $label"
  "$@" >&2 || status=$?
  if ((status == 0)); then say "   done in $(span $(($(now_us) - begin)))"
  else say "   failed with status $status after $(span $(($(now_us) - begin)))"; fi
  return "$status"
}
