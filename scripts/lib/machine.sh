# What a machine needs before Turnback can be built and run, and how it gets it. Sourced, never run. Needs say.sh and postgres.sh.
#
# What is there is left alone: where nothing is missing, no package manager is called. What is missing is named with its reason before it is
# installed. TURNBACK_DRY_RUN=1 names it and stops.
# shellcheck shell=bash

# target_dir ROOT: where cargo builds.
target_dir() {
  local dir=${CARGO_TARGET_DIR:-target}
  [[ $dir == /* ]] || dir=$1/$dir
  printf '%s\n' "$dir"
}

# scratch_parent: where scripts put the servers that they throw away: memory, where there is 4 GiB of it to spare, else the usual place for
# temporary files. A server is a thousand small files, and an ext4 file system that has just lost thousands searches past each of them for every
# new one for half a minute, which would make a run slower by what ran before it.
scratch_parent() {
  local free
  if [[ -n ${TMPDIR:-} ]]; then
    printf '%s\n' "$TMPDIR"
  elif [[ -w /dev/shm ]] && free=$(df --output=avail -k /dev/shm 2>/dev/null | tail -n 1) && ((free >= 4 * 1024 * 1024)); then
    printf '/dev/shm\n'
  else
    printf '/tmp\n'
  fi
}

# wanted_rust ROOT: the oldest Rust that builds it, as MAJOR.MINOR.
wanted_rust() { sed -n 's/^rust-version = "\([0-9]*\.[0-9]*\).*"$/\1/p' "$1/Cargo.toml" | head -n 1; }

# rust_is_enough WANTED: whether the cargo that would be called is at least that one.
rust_is_enough() {
  local version
  version=$(cargo --version 2>/dev/null) || return 1
  version=${version#cargo }
  [[ $(printf '%s\n%s\n' "$1" "$version" | sort -V | head -n 1) == "$1" ]]
}

# compiles_c: whether there is a C compiler that also links, which takes the C library's headers and start files.
compiles_c() {
  command -v cc >/dev/null || return 1
  cc -x c -o /dev/null - 2>/dev/null <<<'int main(void) { return 0; }'
}

# in_distribution PACKAGE: whether apt would install it.
in_distribution() {
  local policy
  policy=$(apt-cache policy "$1" 2>/dev/null) || return 1
  [[ $policy == *"  Candidate: "[0-9]* ]]
}

# as_root COMMAND…: as root, through sudo where we are not.
as_root() {
  if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}

apt_install() {
  as_root env DEBIAN_FRONTEND=noninteractive UCF_FORCE_CONFFOLD=1 apt-get install --yes --no-install-recommends \
    -o Dpkg::Options::=--force-confold "$@" </dev/null >&2
}

# install_packages PACKAGE…: from the distribution, without starting a database server that nobody asked for.
install_packages() {
  local conf=/etc/postgresql-common/createcluster.conf own_conf=no
  if [[ " $* " == *" postgresql "* && ! -e $conf ]]; then
    say "writing $conf for the time of the installation, so that it does not create and start a database server of its own"
    as_root mkdir -p "${conf%/*}"
    echo 'create_main_cluster = false' | as_root tee "$conf" >/dev/null
    own_conf=yes
  fi
  local status=0
  timed "apt-get install $*" apt_install "$@" || status=$?
  if [[ $own_conf == yes ]]; then
    if [[ -e /usr/share/postgresql-common/createcluster.conf ]]; then
      as_root cp /usr/share/postgresql-common/createcluster.conf "$conf"
      say "put the distribution's own $conf in its place"
    else
      as_root rm -f "$conf"
    fi
  fi
  ((status == 0)) || fail 2 "the packages could not be installed" "read apt's messages above; by hand: apt-get install $*"
}

# rust_by_hand WANTED WHY: what to do where the distribution cannot give the Rust that is needed.
rust_by_hand() {
  fail 2 "Rust $1 or newer is missing: $2" \
    "install rustup as https://www.rust-lang.org/tools/install says (as this user; it needs no root), then run this again" \
    "with an existing rustup: rustup toolchain install stable --profile minimal && rustup default stable"
}

# prepare_machine ROOT: PostgreSQL, a C compiler and Rust are there afterwards, or the script has ended with status 2.
prepare_machine() {
  local root=$1 wanted packages=() begin rust=there
  begin=$(now_us)
  wanted=$(wanted_rust "$root")
  # rustup's own place is not on PATH until the next login.
  if ! command -v cargo >/dev/null && [[ -x ${CARGO_HOME:-$HOME/.cargo}/bin/cargo ]]; then
    PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
  fi

  if ! postgres_bindir >/dev/null; then
    say "missing: PostgreSQL 14 to 18 server programs (package postgresql): drills run real servers of their own, never as root"
    packages+=(postgresql)
  fi
  if ! compiles_c; then
    say "missing: a C compiler (packages gcc, libc6-dev): Rust links with it, and libgit2 is compiled in"
    packages+=(gcc libc6-dev)
  fi
  if ! rust_is_enough "$wanted"; then
    rust=missing
    if command -v rustup >/dev/null; then
      say "missing: Rust $wanted or newer (rustup is there and will fetch it): Turnback is built from source"
    else
      say "missing: Rust $wanted or newer (package rustup): Turnback is built from source"
      packages+=(rustup)
    fi
    if [[ ! -e ${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt} ]] && command -v apt-get >/dev/null; then
      say "missing: certificates (package ca-certificates): Rust and its crates are fetched over HTTPS"
      packages+=(ca-certificates)
    fi
  fi

  if ((${#packages[@]} == 0)) && [[ $rust == there ]]; then
    say "nothing to install: PostgreSQL $(postgres_major "$(postgres_bindir)"), a C compiler and $(cargo --version) are here"
    return 0
  fi
  if [[ -n ${TURNBACK_DRY_RUN:-} ]]; then
    say "would install: ${packages[*]:-a Rust toolchain with rustup}"
    if [[ " ${packages[*]} " == *" rustup "* ]] && ! in_distribution rustup; then
      say "but apt knows no package rustup so far: if apt-get update does not find it, install Rust first, as its site says"
    fi
    say "stopping before anything is changed, because TURNBACK_DRY_RUN is set"
    exit 0
  fi
  if ((${#packages[@]} > 0)); then
    command -v apt-get >/dev/null ||
      fail 2 "this machine has no apt-get, and something is missing" \
        "install what is named above with its own package manager, then run this again"
    if ((EUID != 0)); then
      command -v sudo >/dev/null ||
        fail 2 "installing takes root, and there is no sudo" "ask an administrator for: apt-get install ${packages[*]}"
      sudo -n true 2>/dev/null || [[ -t 2 && -r /dev/tty ]] ||
        fail 2 "installing takes root, and sudo wants a password that nobody is here to type" \
          "ask an administrator for: apt-get install ${packages[*]}"
    fi
    timed "apt-get update: the lists of packages" as_root apt-get update -qq ||
      fail 2 "the lists of packages could not be fetched" "read apt's messages above: most often there is no network"
    if [[ " ${packages[*]} " == *" rustup "* ]]; then
      # Before anything is installed: without Rust the rest would be of no use.
      in_distribution rustup || rust_by_hand "$wanted" "$(distribution) has no package rustup, and its own Rust is older"
    fi
    install_packages "${packages[@]}"
  fi
  if [[ $rust == missing ]]; then
    timed "rustup: the stable toolchain" rustup toolchain install stable --profile minimal --component rustfmt,clippy ||
      fail 2 "rustup could not fetch Rust $wanted or newer" \
        "read its message above, then try by hand: rustup toolchain install stable --profile minimal" \
        "behind a proxy with a certificate of its own: export SSL_CERT_FILE=/path/to/the/certificates.pem"
    export RUSTUP_TOOLCHAIN=stable
    rust_is_enough "$wanted" ||
      fail 2 "Rust $wanted or newer is missing: the stable toolchain is $(cargo --version 2>&1)" "rustup update stable"
  fi
  postgres_bindir >/dev/null ||
    fail 2 "the distribution's PostgreSQL is not one of the majors 14 to 18, or lacks programs" "apt-cache policy postgresql"
  say "the machine is ready after $(span $(($(now_us) - begin)))"
}

# distribution: its name, as it calls itself.
distribution() {
  local PRETTY_NAME='this distribution'
  # shellcheck source=/dev/null
  [[ ! -r /etc/os-release ]] || source /etc/os-release
  printf '%s\n' "$PRETTY_NAME"
}
