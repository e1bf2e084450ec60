# kit.json, the description of a kit that the rest of Turnback reads; README.md beside this file says what its fields mean. Sourced, never
# run.
# shellcheck shell=bash disable=SC2154 # here and kit are set by the script that sources this

# A component of a kit, its module, and where modules/NAME pins it.
KIT_COMPONENTS=(
  "kubernetes k8s.io/kubernetes kubernetes"
  "etcd go.etcd.io/etcd/server/v3 etcd"
  "coredns github.com/coredns/coredns coredns"
  "cni-plugins github.com/containernetworking/plugins cni"
  "local-path-provisioner github.com/rancher/local-path-provisioner local-path-provisioner"
  "kind sigs.k8s.io/kind kind"
  "flux github.com/fluxcd/flux2/v2 flux"
  "source-controller github.com/fluxcd/source-controller source-controller"
  "kustomize-controller github.com/fluxcd/kustomize-controller kustomize-controller"
  "cloudnative-pg github.com/cloudnative-pg/cloudnative-pg cnpg"
  "plugin-barman-cloud github.com/cloudnative-pg/plugin-barman-cloud barman-cloud"
  "versitygw github.com/versity/versitygw versitygw"
)

# components: `NAME VERSION SOURCE` lines: modules with the digest that go.sum holds, then packages of PyPI and Debian.
components() {
  local line name module at version layer package
  for line in "${KIT_COMPONENTS[@]}"; do
    read -r name module at <<<"$line"
    version=$(module_version "$at" "$module")
    printf '%s %s %s\n' "$name" "$version" \
      "go:$module@$version $(awk -v m="$module" -v v="$version" '$1 == m && $2 == v { print $3 }' "$here/modules/$at/go.sum")"
  done
  sed -nE 's#^barman==([^ ]*) --hash=(.*)$#barman \1 pypi:barman==\1 \2#p' "$here/modules/barman-cloud/requirements.txt"
  for line in "postgresql postgres postgresql-$POSTGRES_MAJOR" "git git git" "lighttpd git lighttpd" \
    "containerd node containerd" "runc node runc" "systemd node systemd"; do
    read -r name layer package <<<"$line"
    version=$(awk -v p="$package" '$1 == p { print $2 }' "${made[layer-$layer]}/packages")
    printf '%s %s deb:%s=%s %s\n' "$name" "$version" "$package" "$version" "$DEBIAN_SUITE"
  done
}

# image_rows: one JSON object for each image in the node.
image_rows() {
  local name dir reference
  for name in "${image_names[@]}"; do
    dir=${made[image-$name]}
    reference=$(<"$dir/reference")
    jq --null-input --arg name "$name" --arg reference "$reference" --arg id "sha256:$(<"$dir/id")" \
      --arg digest "$(awk -v r="$reference" '$1 == r { print $3 }' "${made[store]}/images")" '{$name, $reference, $id, $digest}'
  done
}

# write_description FILE: kit.json.
write_description() {
  local programs=${made[programs-kubernetes]} reference
  reference=$(<"${made[image-node]}/reference")
  jq --null-input --arg key "${reference##*-}" --arg go "$go_version" \
    --arg kind "${made[programs-kind]}/kind" --arg kubectl "$programs/kubectl" \
    --arg node "$reference" --arg node_id "sha256:$(<"${made[image-node]}/id")" --arg node_description "${made[image-node]}" \
    --arg kubernetes "$(module_version kubernetes k8s.io/kubernetes)" \
    --arg flux "${made[manifest-flux]}/flux.yaml" --arg cnpg "${made[manifest-cnpg]}/cnpg.yaml" \
    --arg barman "${made[manifest-barman]}/barman-cloud.yaml" \
    --arg store "${made[manifest-servers]}/object-store.yaml" --arg git "${made[manifest-servers]}/git-server.yaml" \
    --arg layer "${made[debian]}" --arg digest "sha256:$(<"${made[debian]}/layer.sha256")" \
    --slurpfile images <(image_rows) \
    --slurpfile components <(components | jq --raw-input 'capture("^(?<name>[^ ]+) (?<version>[^ ]+) (?<source>.*)$")') \
    '{format: 1, key: $key, built: "from source", go: $go,
      programs: {kind: $kind, kubectl: $kubectl},
      node: {image: $node, id: $node_id, kubernetes: $kubernetes, description: $node_description},
      base: {layer: $layer, diff_id: $digest},
      images: $images,
      manifests: {flux: $flux, cnpg: $cnpg, "barman-cloud": $barman, "object-store": $store, "git-server": $git},
      components: $components}' >"$1"
}

# describe_kit: kit.json names only what is whole, and is replaced in one step.
describe_kit() {
  local new=$kit/making/kit.json
  mkdir -p "$kit/making"
  write_description "$new"
  # Every image has to be in the store under its name, and every component to have a version.
  jq --exit-status 'all(.images[]; .digest != "") and all(.components[]; .version != "") and (.images | length > 10)' "$new" >/dev/null ||
    fail 1 "the description of the kit is not complete" \
      "look at $new: an image without a digest is not in the store, a component without a version not in the kit"
  if ! cmp -s "$new" "$kit/kit.json"; then mv "$new" "$kit/kit.json"; else rm "$new"; fi
}

# list_kit: what was built from what, and what it takes.
list_kit() {
  jq -r '.components[] | [.name, .version, (.source | split(" ")[0])] | @tsv' "$kit/kit.json" |
    awk -F '\t' '{ printf "   %-24s %-28s %s\n", $1, $2, $3 }' >&2
  say "   $(jq '.images | length' "$kit/kit.json") images in $(jq -r .node.image "$kit/kit.json")"
  say "   on disk: $(du -sh "$kit" 2>/dev/null | cut -f 1) in $kit"
  say "   and $(du -sh "$(go env GOCACHE)" 2>/dev/null | cut -f 1) in Go's build cache, $(go env GOCACHE), which may go"
}

# kit_env: for shells: eval "$(scripts/offline/kit env)".
kit_env() {
  [[ -r $kit/kit.json ]] || fail 1 "there is no kit in $kit" "scripts/offline/kit build"
  jq -r --arg file "$kit/kit.json" '{KIT_JSON: $file, KIT_KIND: .programs.kind, KIT_KUBECTL: .programs.kubectl, KIT_NODE_IMAGE: .node.image,
    KIT_FLUX: .manifests.flux, KIT_CNPG: .manifests.cnpg, KIT_BARMAN_CLOUD: .manifests."barman-cloud",
    KIT_OBJECT_STORE: .manifests."object-store",
    KIT_GIT_SERVER: .manifests."git-server", KIT_POSTGRESQL_IMAGE: (.images[] | select(.name == "postgresql") | .reference)} |
    to_entries[] | "\(.key)=\(.value | @sh)"' "$kit/kit.json"
}
