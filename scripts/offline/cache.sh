# The kit's cache: results named by the hash of everything that went into them. Sourced, never run. Needs say.sh, machine.sh and $kit.
#
# A result is made in $kit/making and moved to $kit/results as its last step, so that what is in $kit/results is whole, whenever a build was
# killed.
# shellcheck shell=bash disable=SC2154 # kit is set by the script that sources this

declare -A made=() # name of a result -> its directory
maker='' reporter='' beside='' # processes that must not outlive this one

# hash_of WORD…: one short name for all of them, in this order.
hash_of() { printf '%s\0' "$@" | sha256sum | cut -c 1-16; }

# hash_of_files FILE…: the hash of their contents, with their names.
hash_of_files() { sha256sum "$@" | sed "s#  $root/#  #" | sha256sum | cut -c 1-16; }

# remove_tree DIR: also where root owns what is in it, as in a Debian tree made through sudo. Never across a mount: a maker that was killed
# may have left one, and what is mounted there is not ours to remove.
remove_tree() {
  local place
  while read -r _ place _; do
    [[ $place != "$1"/* ]] || as_root umount "$place"
  done < <(tac /proc/self/mounts)
  if [[ -O $1 ]] && ((EUID == 0)); then rm -rf --one-file-system "$1"; else as_root rm -rf --one-file-system "$1"; fi
}

# lock_kit: one build at a time; the lock ends with this process.
lock_kit() {
  mkdir -p "$kit"/{results,making,logs}
  exec 8>"$kit/lock"
  flock --nonblock 8 || {
    say "another kit is being built in $kit: waiting for it"
    flock 8
  }
}

# result NAME TITLE "MAKER [HELPER…]" INPUT…: afterwards ${made[NAME]} is the directory of the result. The maker is a function: it is called
# with an empty directory to fill and then the inputs, and it may use nothing else that can change. Its text and that of its helpers are
# inputs as well.
#
# Never call this where bash ignores errors (after `if` or before `||`): the maker would go on after a failed command.
result() {
  local name=$1 title=$2 recipe=$3 maker=${3%% *} key dir making log begin status function text=
  shift 3
  for function in $recipe; do text+=$(declare -f "$function"); done
  # Where the checkout lies is no input: another one of the same contents has the same kit.
  key=$(hash_of "$name" "$text" "${@//"$root/"/}")
  dir=$kit/results/$name-$key
  made[$name]=$dir
  [[ ! -d $dir ]] || return 0

  # A name of this process's own: what a killed build left running writes elsewhere.
  making=$kit/making/$name-$key.$BASHPID
  log=$kit/logs/$name.log
  mkdir -p "$making"
  begin=$(now_us)
  say "== $title"
  # In a process group of its own, so that it can be ended with all that it started; without the lock (fd 8), which is ours.
  set -m
  (
    set -euo pipefail
    "$maker" "$making" "$@"
  ) >"$log" 2>&1 </dev/null 8>&- &
  maker=$!
  set +m
  report_on "$name" "$log" "$begin" 8>&- &
  reporter=$!
  wait "$maker" && status=0 || status=$?
  kill "$reporter"
  wait "$reporter" 2>/dev/null || true
  maker='' reporter=''
  if ((status != 0)); then
    say "   $name: failed with status $status after $(span $(($(now_us) - begin))); the end of $log:"
    tail -n 25 "$log" | sed 's/^/   | /' >&2
    fail 1 "the step failed: $title" "what is whole so far stays; run it again to go on from here"
  fi
  mv -T "$making" "$dir"
  say "   $name: done in $(span $(($(now_us) - begin)))"
}

end_makers() {
  [[ -z $reporter ]] || kill "$reporter" 2>/dev/null || true
  [[ -z $maker ]] || kill -- "-$maker" 2>/dev/null || true
  [[ -z $beside ]] || kill "$beside" 2>/dev/null || true
}

# end_with_makers: what this process started does not outlive it.
end_with_makers() {
  maker='' reporter='' beside=''
  trap end_makers EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

# report_on NAME LOG BEGIN: a line every half minute until it is ended, so that a long step is not taken for a hanging one.
report_on() {
  # A read that nothing answers, not a sleep: a sleep would outlive this process.
  exec 9<> <(:)
  while ! read -r -t 30 -u 9; do
    say "   $1: $(span $(($(now_us) - $3))): $(tail -n 1 "$2" | cut -c 1-100)"
  done
}

# remove_half_made: what killed builds left.
remove_half_made() {
  local dir
  for dir in "$kit"/making/*; do
    [[ ! -e $dir ]] || remove_tree "$dir"
  done
}

# prune_results: removes results that this kit does not refer to.
prune_results() {
  local dir kept=" ${made[*]} "
  for dir in "$kit"/results/*; do
    [[ -e $dir && $kept != *" $dir "* ]] || continue
    say "   removing ${dir##*/}, which nothing needs any more"
    remove_tree "$dir"
  done
}
