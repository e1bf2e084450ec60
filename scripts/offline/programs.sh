# The programs of the kit, compiled from Go modules. Sourced, never run. Needs cache.sh and $here.
#
# modules/NAME/go.mod pins each component with everything below it, and go.sum says what must come out of the proxy. A newer version may
# name a module that is not to be had there: raise a version, build, try, and commit the two files.
# shellcheck shell=bash disable=SC2154,SC2164 # here is set by the script that sources this; makers run under `set -e`

# Compiling with another Go gives other binaries, so its version is part of every key. Older than the first does not build them; the second
# is fetched from the module proxy where the machine's own is too old.
GO_AT_LEAST=1.26.4
GO_FETCHED=go1.26.8

# go_is_enough VERSION: whether `goX.Y.Z` is at least GO_AT_LEAST.
go_is_enough() { [[ $(printf '%s\n%s\n' "$GO_AT_LEAST" "${1#go}" | sort -V | head -n 1) == "$GO_AT_LEAST" ]]; }

# kit_go: a Go that is new enough afterwards: the machine's, or one out of the module proxy.
kit_go() {
  local fetched
  go_version=$(GOTOOLCHAIN=local go env GOVERSION) || fail 2 "go does not run" "GOTOOLCHAIN=local go env GOVERSION"
  export GOTOOLCHAIN=local
  if go_is_enough "$go_version"; then return 0; fi
  say "this machine's Go is $go_version, and the modules need $GO_AT_LEAST: taking $GO_FETCHED from the module proxy"
  # The way of `go` itself, by hand: Go before 1.21 does not know it.
  fetched=golang.org/toolchain@v0.0.1-$GO_FETCHED.$(go env GOOS)-$(go env GOARCH)
  fetched=$(cd / && GOFLAGS=-mod=mod go mod download -json "$fetched" | jq -r .Dir)
  [[ -d $fetched/bin ]] || fail 2 "Go $GO_FETCHED could not be fetched from the module proxy" \
    "install Go $GO_AT_LEAST or newer by hand and put it first in PATH, then run this again"
  # Modules are kept without permission to run them.
  chmod -R u+w "$fetched/bin" "$fetched/pkg/tool"
  chmod -R +x "$fetched/bin" "$fetched/pkg/tool"
  PATH=$fetched/bin:$PATH
  unset GOROOT
  go_version=$(go env GOVERSION)
  go_is_enough "$go_version" || fail 2 "the Go from the module proxy calls itself $go_version"
}

# module_version NAME MODULE: the version that modules/NAME/go.mod pins.
module_version() {
  awk -v module="$2" '$1 == "require" { sub(/^require +/, "") } $1 == module && $2 ~ /^v/ { print $2; exit }' "$here/modules/$1/go.mod"
}

# module_dir NAME MODULE: its source, checked against modules/NAME/go.sum.
module_dir() {
  local dir
  dir=$(cd "$here/modules/$1" && go mod download -json "$2" | jq -r '.Dir // empty')
  [[ -d $dir ]] || fail 1 "the Go module $2 could not be had" "cd scripts/offline/modules/$1 && go mod download $2"
  printf '%s\n' "$dir"
}

# make_programs OUT NAME KEY TAGS LDFLAGS PACKAGE…: one executable for each package, named as it is, or as `PACKAGE=NAME` says. KEY stands
# for what is not in the text: go.mod, go.sum and Go itself.
make_programs() {
  local out=$1 name=$2 tags=$4 ldflags=$5 package packages=() renamed=()
  shift 5
  for package in "$@"; do
    packages+=("${package%%=*}")
    [[ $package != *=* ]] || renamed+=("$package")
  done
  cd "$here/modules/$name"
  CGO_ENABLED=0 GOFLAGS="-mod=readonly -trimpath -buildvcs=false" \
    nice go build -v -tags "$tags" -ldflags "-s -w $ldflags" -o "$out/" "${packages[@]}"
  for package in "${renamed[@]}"; do
    [[ $package != .=* ]] || package=kit/$name=${package#.=}
    # Go names an executable after the last part of its package's path that is not a major version.
    mv --no-clobber "$out/$(go_names "${package%%=*}")" "$out/${package##*=}"
  done
}

# go_names PACKAGE: the name that go gives its executable.
go_names() {
  local path=$1
  [[ ! ${path##*/} =~ ^v[0-9]+$ ]] || path=${path%/*}
  printf '%s\n' "${path##*/}"
}

# programs NAME TAGS LDFLAGS PACKAGE…: the result `programs-NAME`.
programs() {
  local name=$1 title="compiling $1" key
  shift
  # shellcheck disable=SC2046 # no, one or more files
  key=$(hash_of_files "$here/modules/$name"/*.mod "$here/modules/$name"/*.sum $(compgen -G "$here/modules/$name/*.go"))
  key=$(hash_of "$go_version" "$(go env GOARCH)" "$key")
  result "programs-$name" "$title" "make_programs go_names" "$name" "$key" "$@"
}

# make_pause OUT SOURCE KEY: the one program in C.
make_pause() {
  cc -Os -static -s -o "$1/pause" "$2"
  # Told to end, it ends well.
  timeout --preserve-status 1 "$1/pause"
}

build_programs() {
  local kubernetes minor stamps='' package cnpg
  kubernetes=$(module_version kubernetes k8s.io/kubernetes)
  minor=${kubernetes#v1.}
  # kubeadm compares its own version with the cluster's: a build that is not stamped is v0.0.0.
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    stamps+=" -X $package.gitVersion=$kubernetes -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*} -X $package.gitTreeState=clean"
    stamps+=" -X $package.gitCommit=module -X $package.buildDate=1970-01-01T00:00:00Z"
  done
  cnpg=$(module_version cnpg github.com/cloudnative-pg/cloudnative-pg)
  # Kubernetes first: the others use much of what it compiles.
  programs kubernetes selinux,notest,grpcnotrace "$stamps" k8s.io/kubernetes/cmd/{kubeadm,kubelet,kubectl} \
    k8s.io/kubernetes/cmd/kube-{apiserver,controller-manager,scheduler,proxy}
  programs kind '' '' sigs.k8s.io/kind
  programs cni '' '' github.com/containernetworking/plugins/plugins/{ipam/host-local,main/loopback,main/ptp,meta/portmap}
  programs cnpg '' "-X github.com/cloudnative-pg/cloudnative-pg/pkg/versions.buildVersion=${cnpg#v}" \
    github.com/cloudnative-pg/cloudnative-pg/cmd/manager
  programs barman-cloud '' '' github.com/cloudnative-pg/plugin-barman-cloud/cmd/manager
  programs source-controller '' '' github.com/fluxcd/source-controller
  programs kustomize-controller '' '' github.com/fluxcd/kustomize-controller
  programs etcd '' '' go.etcd.io/etcd/server/v3=etcd
  programs local-path-provisioner '' '' github.com/rancher/local-path-provisioner
  programs versitygw '' '' github.com/versity/versitygw/cmd/versitygw
  programs coredns '' '' .=coredns
  result pause "compiling pause" make_pause "$here/pause.c" "$(hash_of_files "$here/pause.c")"
}
