# A Docker engine that runs. Sourced, never run. Needs say.sh, machine.sh, $here and $kit.
# shellcheck shell=bash disable=SC2154 # here and kit are set by the script that sources this

# engine_answers: whether a Docker engine can be talked to, by whoever started it.
engine_answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# missing_capabilities: what `docker run --privileged` asks for and this machine cannot give; empty where it can give all.
missing_capabilities() { "$here/bounded-runc" --missing | jq -r 'join(" ")'; }

# install_engine: docker.io, without its being started by the package: it would start without the runtime that this machine may need.
install_engine() {
  local policy=/usr/sbin/policy-rc.d own_policy=no status=0
  say "missing: a Docker engine (package docker.io): kind's nodes are containers"
  if [[ ! -d /run/systemd/system && ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
    own_policy=yes
  fi
  (install_packages docker.io) || status=$?
  [[ $own_policy == no ]] || as_root rm "$policy"
  ((status == 0)) || exit "$status"
}

# remove_dead_pid_files: an engine that was killed leaves its pid files, and the next one refuses to start over them.
remove_dead_pid_files() {
  local file pid
  for file in /var/run/docker.pid /var/run/docker/containerd/containerd.pid; do
    [[ -f $file ]] || continue
    pid=$(as_root cat "$file")
    # A zombie has a directory in /proc too, and a number may be someone else's by now.
    if [[ -n $pid ]] && grep -qE '^State:[[:space:]]*[RSDT]' "/proc/$pid/status" 2>/dev/null &&
      grep -qE '^(dockerd|containerd)$' "/proc/$pid/comm" 2>/dev/null; then
      fail 1 "an engine runs as process $pid ($file), but does not answer" "read its log, or end it, then run this again"
    fi
    say "removing $file: the process $pid that it names runs no more"
    as_root rm -f "$file"
  done
}

# start_engine MISSING: dockerd by hand, living on after this script, with its output in the kit's directory.
start_engine() {
  local log=$kit/logs/dockerd.log options=() as_root=() tries
  mkdir -p "$kit/logs" "$kit/engine"
  if [[ -n $1 ]]; then
    # A copy: the engine must not depend on a checkout that may go away.
    install -m 755 "$here/bounded-runc" "$kit/engine/bounded-runc"
    options=(--add-runtime "bounded=$kit/engine/bounded-runc" --default-runtime bounded)
  fi
  # The function as_root would stay behind as a shell that holds our caller's stdout open: whoever reads that would wait for the engine's
  # end.
  ((EUID == 0)) || as_root=(sudo)
  # shellcheck disable=SC2024 # the log is ours, the engine is root's
  setsid nohup "${as_root[@]}" dockerd "${options[@]}" >"$log" 2>&1 </dev/null 8>&- 9>&- &
  disown
  for ((tries = 0; tries < 150; tries++)); do
    ! engine_answers || return 0
    read -r -t 0.2 <> <(:) || true
  done
  tail -n 20 "$log" >&2
  return 1
}

# kit_engine: an engine answers afterwards. One that answers already is left as it is.
kit_engine() {
  local missing
  command -v jq >/dev/null || install_packages jq
  missing=$(missing_capabilities)
  if command -v docker >/dev/null && engine_answers; then
    say "a Docker engine answers: $(docker version --format '{{.Server.Version}}'), cgroup v$(docker info --format '{{.CgroupVersion}}')"
    if [[ -n $missing && $(docker info --format '{{.DefaultRuntime}}') == runc ]]; then
      say "   but this machine lacks $missing, and that engine's runtime does not know: privileged containers will fail in it"
      say "   hint: end it, then run scripts/offline/kit engine"
    fi
    return 0
  fi
  command -v dockerd >/dev/null || install_engine
  if [[ -d /run/systemd/system && -z $missing ]]; then
    timed "starting the Docker engine" as_root systemctl start docker || fail 1 "the Docker engine did not start" "journalctl -u docker"
    engine_answers || fail 1 "the Docker engine runs, but not for this user" \
      "be in the group docker: sudo usermod -aG docker $USER, then log in anew"
    return 0
  fi
  remove_dead_pid_files
  [[ -z $missing ]] ||
    say "this machine lacks $missing: containers get a runtime that does not ask for it (scripts/offline/bounded-runc)"
  timed "starting a Docker engine, log: $kit/logs/dockerd.log" start_engine "$missing" ||
    fail 1 "no Docker engine could be started" "the end of its log is above; all of it: $kit/logs/dockerd.log"
}
