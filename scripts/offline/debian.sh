# Debian trees without an image registry: one base by debootstrap, and layers of packages on top of it. Sourced, never run.
# shellcheck shell=bash disable=SC2016,SC2154 # here and made are set by the script that sources this

# The suite of everything in the kit: its systemd (252) is the last that starts where the host has only cgroup v1.
DEBIAN_SUITE=bookworm
# What that suite has.
POSTGRES_MAJOR=15

# debian_mirror: TURNBACK_DEBIAN_MIRROR, or the one that this machine installs Debian packages from (deb822 or one-line format), or
# nothing, which leaves the choice to debootstrap.
debian_mirror() {
  local ID=unknown file uri
  if [[ -n ${TURNBACK_DEBIAN_MIRROR:-} ]]; then
    printf '%s\n' "$TURNBACK_DEBIAN_MIRROR"
    return 0
  fi
  # shellcheck source=/dev/null
  [[ ! -r /etc/os-release ]] || source /etc/os-release
  # Ubuntu's mirrors have no Debian on them.
  [[ $ID == debian ]] || return 0
  for file in /etc/apt/sources.list.d/*.sources /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [[ -r $file ]] || continue
    # Only an archive called "debian" is Debian's main one: not the one for security, nor another vendor's.
    uri=$(sed -nE -e 's#^URIs:[[:space:]]*([^[:space:]]+/debian/?)([[:space:]].*)?$#\1#p' \
      -e 's#^deb[[:space:]]+(\[[^]]*\][[:space:]]+)?([^[:space:]]+/debian/?)[[:space:]].*$#\2#p' "$file" | head -n 1)
    if [[ -n $uri ]]; then
      printf '%s\n' "$uri"
      return 0
    fi
  done
}

# layer_of TREE FILE: packs what the list on stdin (zero-ended, ./paths) names, and notes its digest.
layer_of() {
  # What no image needs: documentation, translations, logs and what apt can fetch again.
  local left_out='^\./(dev|proc|sys|tmp|run|var/cache|var/log|var/lib/apt/lists|usr/share/(doc|man|info|locale|lintian|bug))/.'
  LC_ALL=C sort -z | grep -zEv "$left_out" |
    as_root tar -C "$1" --create --no-recursion --numeric-owner --xattrs --null --files-from=- >"$2"
  sha256sum "$2" | cut -d ' ' -f 1 >"${2%.tar}.sha256"
}

# packages_of TREE: every package in it with its version.
packages_of() { as_root chroot "$1" dpkg-query -W -f '${Package} ${Version}\n'; }

# make_debian OUT SUITE PACKAGES MIRROR: the base: a layer for images, and the whole tree for the layers that build upon it.
make_debian() {
  local out=$1 suite=$2 packages=$3 mirror=$4 tree=$1/tree
  # Nothing of a throwaway tree has to survive a power cut, or be read by a person.
  as_root mkdir -p "$tree/etc/dpkg/dpkg.cfg.d"
  printf '%s\n' force-unsafe-io path-exclude=/usr/share/{doc,man,info,locale,lintian,bug}/'*' |
    as_root tee "$tree/etc/dpkg/dpkg.cfg.d/kit" >/dev/null
  # In a mount namespace of its own: what it mounts goes with it, even when it is killed.
  as_root unshare --mount --propagation private \
    debootstrap --variant=minbase --include="$packages" "$suite" "$tree" ${mirror:+"$mirror"}
  # These it takes from the machine that it runs on.
  as_root rm "$tree/etc/hostname"
  : | as_root tee "$tree/etc/resolv.conf" >/dev/null
  # The archives are installed; the lists of packages are what the layers need.
  as_root find "$tree/var/cache/apt" -name '*.deb' -delete
  as_root find "$tree/var/cache/apt" -name '*.bin' -delete
  packages_of "$tree" >"$out/packages"
  # Debian's locales are not installed, C.UTF-8 is part of libc: gconv's other character sets are never asked for.
  (cd "$tree" && as_root find . -print0) | grep -zv '/gconv/.*\.so$' | layer_of "$tree" "$out/layer.tar"
  as_root tar -C "$tree" --create --numeric-owner --xattrs . >"$out/tree.tar"
  remove_tree "$tree"
}

# make_debian_layer OUT BASE PACKAGES FINISH [ARGUMENT…]: what installing the packages on BASE and the function FINISH (called with the tree
# and the arguments) add to it. What they delete from the base is not recorded: nothing here needs that.
make_debian_layer() {
  local out=$1 base=$2 packages=$3 finish=$4 tree=$1/tree
  shift 4
  mkdir "$tree"
  as_root tar -C "$tree" --extract --numeric-owner --xattrs --xattrs-include='*' --file "$base/tree.tar"
  as_root cp /etc/resolv.conf "$tree/etc/resolv.conf"
  # No service may start in here, and PostgreSQL's package must not create a database.
  printf '#!/bin/sh\nexit 101\n' | as_root tee "$tree/usr/sbin/policy-rc.d" >/dev/null
  as_root chmod 755 "$tree/usr/sbin/policy-rc.d"
  as_root mkdir -p "$tree/etc/postgresql-common"
  echo 'create_main_cluster = false' | as_root tee "$tree/etc/postgresql-common/createcluster.conf" >/dev/null
  touch "$out/before"
  # A change within the file system's own grain of time would not count as newer.
  read -r -t 0.1 <> <(:) || true
  # shellcheck disable=SC2086 # packages is a list
  [[ -z $packages ]] || as_root unshare --mount --propagation private chroot "$tree" env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 \
    apt-get install --yes --no-install-recommends $packages
  as_root rm "$tree/usr/sbin/policy-rc.d"
  : | as_root tee "$tree/etc/resolv.conf" >/dev/null
  packages_of "$tree" >"$out/packages"
  "$finish" "$tree" "$@"
  (cd "$tree" && as_root find . -mindepth 1 -cnewer "$out/before" -print0) | layer_of "$tree" "$out/layer.tar"
  rm "$out/before"
  remove_tree "$tree"
}

# finish_nothing TREE: the packages are all there is to it.
finish_nothing() { :; }

# finish_postgres TREE MAJOR: the account and places that CNPG expects, without what a drill never uses: LLVM for JIT and Perl are two
# thirds of it.
finish_postgres() {
  local tree=$1 major=$2
  as_root chroot "$tree" bash -euc "
    usermod -u 26 postgres
    groupmod -g 26 postgres 2>/dev/null || true
    ln -sf /usr/lib/postgresql/$major/bin/* /usr/local/bin/
    rm -rf /var/lib/postgresql/$major
    chown -R 26:26 /var/lib/postgresql /var/run/postgresql
    rm -rf /usr/lib/*/libLLVM* /usr/lib/postgresql/$major/lib/bitcode /usr/lib/postgresql/$major/lib/llvmjit*
    rm -rf /usr/share/perl /usr/share/perl5 /usr/lib/*/perl /usr/lib/*/perl5 /usr/share/postgresql/$major/man /usr/lib/*/libz3.so*
  "
}

# finish_barman TREE WHEEL: barman's commands out of its wheel, with what they load compiled to byte code once: they are started for every
# segment of WAL, from a file system that they cannot write to.
finish_barman() {
  local tree=$1 wheel=$2
  as_root cp "$wheel" "$tree/tmp/barman.whl"
  as_root chroot "$tree" bash -euc '
    cd /usr/lib/python3/dist-packages
    python3 -m zipfile -e /tmp/barman.whl .
    rm /tmp/barman.whl
    sed -n "s/^\(barman-cloud-[a-z-]*\) *= *\([a-z_.]*\):\([a-z_]*\)$/\1 \2 \3/p" barman-*.dist-info/entry_points.txt |
      while read -r command module function; do
        printf "#!/usr/bin/python3\nimport sys\nfrom %s import %s\nsys.exit(%s())\n" "$module" "$function" "$function" >"/usr/local/bin/$command"
        chmod 755 "/usr/local/bin/$command"
      done
    # Of the services that boto3 knows, S3 and what signs requests to it.
    find botocore/data -mindepth 1 -maxdepth 1 -type d ! -name s3 ! -name sts -exec rm -rf {} +
    find boto3/data -mindepth 1 -maxdepth 1 -type d ! -name s3 -exec rm -rf {} +
    find /usr/lib/python3 /usr/lib/python3.* -name __pycache__ -type d -exec rm -rf {} +
    python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /usr/lib/python3 /usr/lib/python3.*
    barman-cloud-wal-archive --version
    barman-cloud-backup --version
    python3 -c "import boto3; boto3.client(\"s3\", region_name=\"us-east-1\", aws_access_key_id=\"a\", aws_secret_access_key=\"b\")"
  '
}

# make_wheel OUT REQUIREMENTS HASH: barman from PyPI, exactly the file whose digest is written down.
make_wheel() {
  pip3 download --quiet --no-deps --only-binary :all: --require-hashes --requirement "$2" --dest "$1"
  mv "$1"/barman-*.whl "$1/barman.whl"
}

build_debian() {
  local mirror
  mirror=$(debian_mirror)
  [[ -n $mirror ]] || say "   Debian from debootstrap's own default mirror (TURNBACK_DEBIAN_MIRROR names another)"
  result debian "Debian $DEBIAN_SUITE by debootstrap" "make_debian layer_of packages_of" "$DEBIAN_SUITE" ca-certificates "$mirror"
  debian_layer iptables "iptables nftables conntrack kmod" finish_nothing
  debian_layer postgres "postgresql-$POSTGRES_MAJOR" finish_postgres "$POSTGRES_MAJOR"
  result wheel "barman from PyPI" make_wheel "$here/modules/barman-cloud/requirements.txt" \
    "$(hash_of_files "$here/modules/barman-cloud/requirements.txt")"
  debian_layer barman "python3 python3-boto3 python3-psycopg2 python3-dateutil python3-argcomplete python3-snappy \
python3-zstandard python3-lz4" finish_barman "${made[wheel]}/barman.whl"
  debian_layer git "git lighttpd" finish_git "$here/git-server" "$(hash_of_files "$here/git-server")"
}

# debian_layer NAME PACKAGES FINISH ARGUMENT…: the result `layer-NAME`.
debian_layer() {
  local name=$1 packages=$2 finish=$3
  shift 3
  result "layer-$name" "Debian packages: $packages" "make_debian_layer layer_of packages_of $finish" \
    "${made[debian]}" "$packages" "$finish" "$@"
}

# finish_git TREE SERVER HASH: the script that serves; without the Perl that git wants for what a server never does.
finish_git() {
  local tree=$1 server=$2
  as_root install -m 755 "$server" "$tree/usr/local/bin/git-server"
  as_root chroot "$tree" bash -euc '
    rm -rf /usr/share/perl /usr/share/perl5 /usr/lib/*/perl /usr/lib/*/perl5 /usr/lib/git-core/git-{shell,instaweb,svn,send-email}
    rm -rf /usr/share/git-core/contrib /var/www
    git http-backend 2>&1 | grep -q "Status: 500"
    lighttpd -v
  '
}
