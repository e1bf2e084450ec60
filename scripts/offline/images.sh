# The images of the kit, described by their layers and configuration, and the archives they travel in. Sourced, never run. Needs cache.sh.
#
# No engine is asked: an image is a list of tar files and a few lines of JSON. What is in the archives is exactly what the layers say, so
# the same inputs give the same image ids.
# shellcheck shell=bash disable=SC2154 # kit is set by the script that sources this

image_names=() # of the images that the cluster needs, without `image-`

# make_program_layer OUT PROGRAM PLACE…: a layer with one executable, at PLACE and, as symbolic links to it, at the further places.
make_program_layer() {
  local out=$1 program=$2 place=$3 link
  shift 3
  mkdir -p "$out/tree$(dirname "$place")"
  install -m 755 "$program" "$out/tree$place"
  for link in "$@"; do
    mkdir -p "$out/tree$(dirname "$link")"
    ln -s "$place" "$out/tree$link"
  done
  pack_program_layer "$out/tree" "$out/layer.tar"
  rm -r "$out/tree"
}

# pack_program_layer TREE FILE: root's, and as old as time itself, so that the digest depends on the contents alone.
pack_program_layer() {
  tar -C "$1" --create --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u+rwX,go+rX,go-w . >"$2"
  sha256sum "$2" | cut -d ' ' -f 1 >"${2%.tar}.sha256"
}

# image_config CONFIG LAYER_DIR…: the image's configuration as its own JSON; its digest is the image's id.
image_config() {
  local config=$1 dir digests=()
  shift
  for dir in "$@"; do digests+=("sha256:$(<"$dir/layer.sha256")"); done
  jq --compact-output --null-input --arg architecture "$(image_architecture)" --argjson config "$config" '$ARGS.positional as $layers |
    {architecture: $architecture, os: "linux", created: "1970-01-01T00:00:00Z", config: $config,
      rootfs: {type: "layers", diff_ids: $layers}}' \
    --args "${digests[@]}"
}

# image_architecture: in the words of image registries, which are Debian's.
image_architecture() { dpkg --print-architecture; }

# make_image OUT REFERENCE CONFIG LAYER_DIR…: the description of an image.
make_image() {
  local out=$1 reference=$2 config=$3
  shift 3
  image_config "$config" "$@" >"$out/config.json"
  printf '%s\n' "$reference" >"$out/reference"
  printf '%s\n' "$@" >"$out/layers"
  sha256sum "$out/config.json" | cut -d ' ' -f 1 >"$out/id"
}

# image NAME REFERENCE CONFIG LAYER…: the result `image-NAME` of the results LAYER.
image() {
  local name=$1 reference=$2 config=$3 layer layers=()
  shift 3
  for layer in "$@"; do layers+=("${made[$layer]}"); done
  result "image-$name" "image $reference" "make_image image_config image_architecture" "$reference" "$config" "${layers[@]}"
}

# program_image NAME REFERENCE CONFIG PROGRAM PLACE…: an image of one executable alone.
program_image() {
  local name=$1 reference=$2 config=$3 program=$4
  shift 4
  program_layer "$name" "$program" "$@"
  image "$name" "$reference" "$config" "layer-$name"
  image_names+=("$name")
}

# program_layer NAME PROGRAM PLACE…: the result `layer-NAME` with an executable, itself named as PROGRAMS/FILE.
program_layer() {
  local name=$1 program=${made[${2%%/*}]}/${2##*/}
  shift 2
  result "layer-$name" "layer with ${1##*/}" "make_program_layer pack_program_layer" "$program" "$@"
}

# write_archive FILE COMPRESSED IMAGE_DIR…: the images in Docker's own archive format, which Docker and containerd of every age read; - is
# stdout. Layers that several have in common are in it once: as they are, or from the directory COMPRESSED where that is not empty.
write_archive() {
  local file=$1 compressed=$2 dir layer work manifest=[]
  shift 2
  work=$(mktemp -d "${TMPDIR:-/tmp}/turnback-image.XXXXXX")
  for dir in "$@"; do
    local id layers=()
    id=$(<"$dir/id")
    ln -s "$dir/config.json" "$work/$id.json"
    while read -r layer; do
      if [[ -z $compressed ]]; then ln -sfn "$layer/layer.tar" "$work/$(<"$layer/layer.sha256").tar"
      else ln -sfn "$compressed/$(<"$layer/layer.sha256")" "$work/$(<"$layer/layer.sha256").tar"; fi
      layers+=("$(<"$layer/layer.sha256").tar")
    done <"$dir/layers"
    manifest=$(jq --compact-output --arg config "$id.json" --arg reference "$(<"$dir/reference")" \
      '. + [{Config: $config, RepoTags: [$reference], Layers: $ARGS.positional}]' --args "${layers[@]}" <<<"$manifest")
  done
  printf '%s' "$manifest" >"$work/manifest.json"
  # manifest.json last: readers that stop at it have seen the rest.
  [[ $file != - ]] || file=/dev/stdout
  (cd "$work" && tar --create --dereference --sort=name --owner=0 --group=0 --numeric-owner -- *) >"$file"
  rm -r "$work"
}

# compress_layers OUT IMAGE_DIR…: the layers of all of them, quickly rather than well.
compress_layers() {
  local out=$1 layer
  shift
  cat "${@/%//layers}" | sort -u |
    while read -r layer; do printf '%s\0%s\0' "$layer/layer.tar" "$out/$(<"$layer/layer.sha256")"; done |
    xargs -0 --max-args 2 --max-procs "$(nproc)" sh -euc 'gzip --fast --no-name <"$0" >"$1"'
}

# kubernetes_images: `COMPONENT REFERENCE` for each image that kubeadm will ask the node for.
kubernetes_images() {
  local version
  version=$(module_version kubernetes k8s.io/kubernetes)
  "${made[programs-kubernetes]}/kubeadm" config images list --kubernetes-version "$version" 2>/dev/null |
    while read -r reference; do
      local component=${reference%:*}
      printf '%s %s\n' "${component##*/}" "$reference"
    done
}

build_images() {
  local component reference flux cnpg barman path='"Env":["PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"]'
  # Kubernetes' own, under the names and tags that this kubeadm expects.
  while read -r component reference; do
    case $component in
      kube-proxy)
        program_layer kube-proxy programs-kubernetes/kube-proxy /usr/local/bin/kube-proxy
        image kube-proxy "$reference" "{$path}" debian layer-iptables layer-kube-proxy
        image_names+=(kube-proxy)
        ;;
      kube-*) program_image "$component" "$reference" "{$path}" "programs-kubernetes/$component" "/usr/local/bin/$component" ;;
      etcd) program_image etcd "$reference" "{$path}" programs-etcd/etcd /usr/local/bin/etcd ;;
      coredns) program_image coredns "$reference" '{"Entrypoint":["/coredns"]}' programs-coredns/coredns /coredns ;;
      pause) program_image pause "$reference" '{"Entrypoint":["/pause"],"User":"65535:65535"}' pause/pause /pause ;;
      *) fail 1 "kubeadm asks for an image that the kit does not know: $reference" "add $component to build_images in images.sh" ;;
    esac
  done < <(kubernetes_images)
  [[ -n ${made[image-pause]:-} ]] ||
    fail 1 "kubeadm did not say which images it needs" "${made[programs-kubernetes]}/kubeadm config images list"

  reference=$(own_image local-path-provisioner "$(module_version local-path-provisioner github.com/rancher/local-path-provisioner)")
  program_image local-path-provisioner "$reference" "{$path}" programs-local-path-provisioner/local-path-provisioner /usr/local/bin/local-path-provisioner

  # Flux, CNPG and the plugin under the names that their own manifests give them.
  flux=$(flux_registry)
  for component in source-controller kustomize-controller; do
    program_image "$component" "$flux/$component:$(module_version "$component" "github.com/fluxcd/$component")" \
      "{\"Entrypoint\":[\"/usr/local/bin/$component\"],\"User\":\"65534:65534\",$path}" \
      "programs-$component/$component" "/usr/local/bin/$component"
  done
  cnpg=$(cnpg_image)
  # The instances copy their manager out of this image by the longer name.
  program_image cloudnative-pg "$cnpg" '{"Entrypoint":["/manager"],"User":"65532:65532","WorkingDir":"/"}' programs-cnpg/manager \
    "/operator/manager_$(image_architecture)" /manager
  barman=$(barman_image)
  program_image plugin-barman-cloud "$barman" '{"Entrypoint":["/manager"],"User":"10001:10001"}' programs-barman-cloud/manager /manager
  image plugin-barman-cloud-sidecar "${barman%:*}-sidecar:${barman##*:}" "{\"Entrypoint\":[\"/manager\"],\"User\":\"26:26\",$path}" \
    debian layer-barman layer-plugin-barman-cloud
  image_names+=(plugin-barman-cloud-sidecar)

  program_image versitygw "$(own_image versitygw "$(module_version versitygw github.com/versity/versitygw)")" \
    '{"Entrypoint":["/versitygw"],"User":"65532:65532"}' programs-versitygw/versitygw /versitygw
  image postgresql "$(own_image postgresql "$POSTGRES_MAJOR")" \
    "{\"User\":\"26\",\"Env\":[\"PATH=/usr/local/bin:/usr/bin:/bin\",\"LANG=C.UTF-8\"]}" debian layer-postgres
  image git-server "$(own_image git-server "$DEBIAN_SUITE")" \
    "{\"Entrypoint\":[\"/usr/local/bin/git-server\"],\"User\":\"65532:65532\",$path}" debian layer-git
  # Under what runs the project's own application, and what the storage provisioner calls for mkdir and rm.
  image base "$(own_image base "$DEBIAN_SUITE")" "{$path}" debian
  image_names+=(postgresql git-server base)
}

# own_image NAME TAG: the reference of an image that nobody publishes. The host is one that cannot exist, so that it can only come from the
# kit.
own_image() { printf 'turnback.invalid/%s:%s\n' "$1" "$2"; }

# kit_app EXECUTABLE NAME:TAG: an image of the base with the executable as its entry point, as an archive on stdout:
#   kit app target/release/turnback turnback:dev | docker exec -i NODE ctr --namespace k8s.io images import -
kit_app() {
  (($# == 2)) || fail 2 "an executable and a reference are needed" "scripts/offline/kit app target/release/turnback turnback:dev >image.tar"
  local work program=$1 reference=$2 base
  [[ -x $program ]] || fail 2 "$program is not an executable"
  base=$(jq -r '.base.layer' "$kit/kit.json") || fail 1 "there is no kit" "scripts/offline/kit build"
  work=$(mktemp -d "${TMPDIR:-/tmp}/turnback-app.XXXXXX")
  mkdir "$work/layer" "$work/image"
  make_program_layer "$work/layer" "$program" "/usr/local/bin/${program##*/}"
  make_image "$work/image" "$reference" "{\"Entrypoint\":[\"/usr/local/bin/${program##*/}\"],\"User\":\"65532:65532\"}" \
    "$base" "$work/layer"
  write_archive - '' "$work/image"
  rm -r "$work"
}
