# The manifests of the kit: upstream's own, as the Go modules carry them, changed only where a cluster without registry and without
# cert-manager needs it. Sourced, never run. Needs cache.sh and programs.sh.
# shellcheck shell=bash disable=SC2154 # here and kit are set by the script that sources this

# flux_registry: where upstream's own installation takes Flux's images from.
flux_registry() {
  local name flux
  flux=$(module_dir flux github.com/fluxcd/flux2/v2)
  name=$(sed -n 's#^ *newName: *\(.*\)/source-controller$#\1#p' "$flux/manifests/install/kustomization.yaml")
  [[ -n $name ]] || fail 1 "Flux's manifests do not say where its images are" "look into manifests/install/kustomization.yaml of the module"
  printf '%s\n' "$name"
}

# cnpg_manifest: the file of the release that modules/cnpg pins.
cnpg_manifest() {
  local version
  version=$(module_version cnpg github.com/cloudnative-pg/cloudnative-pg)
  printf '%s/releases/cnpg-%s.yaml\n' "$(module_dir cnpg github.com/cloudnative-pg/cloudnative-pg)" "${version#v}"
}

# cnpg_image: the operator's image, as that manifest names it.
cnpg_image() { sed -n 's/^ *image: *\([^ ]*\/cloudnative-pg:[^ ]*\)$/\1/p' "$(cnpg_manifest)" | head -n 1; }

# barman_image: the plugin's image as its releases name it. The module's manifest is that of its main branch, which names images of every
# day.
barman_image() {
  local name plugin
  plugin=$(module_dir barman-cloud github.com/cloudnative-pg/plugin-barman-cloud)
  name=$(sed -n 's/^ *image: *\(.*\)-testing:main$/\1/p' "$plugin/manifest.yaml")
  [[ -n $name ]] || fail 1 "the plugin's manifest names no image that the kit knows" "look at image: in manifest.yaml of the module"
  printf '%s:%s\n' "$name" "$(module_version barman-cloud github.com/cloudnative-pg/plugin-barman-cloud)"
}

# make_flux OUT KUBECTL FLUX CONTROLLER=SOURCE…: what `flux install` would apply, with the controllers named alone.
make_flux() {
  local out=$1 kubectl=$2 work=$1/work controller source
  cp --recursive --no-preserve=mode "$3/manifests" "$work"
  shift 3
  printf '%s\n' 'apiVersion: kustomize.config.k8s.io/v1beta1' 'kind: Kustomization' 'namespace: flux-system' \
    'resources:' '- namespace.yaml' '- ../rbac' '- ../policies' >"$work/install/new.yaml"
  for controller in "$@"; do
    source=${controller#*=} controller=${controller%%=*}
    "$kubectl" kustomize "$source/config/crd" >"$work/bases/$controller/crds.yaml"
    "$kubectl" kustomize "$source/config/manager" >"$work/bases/$controller/deployment.yaml"
    # Upstream fetches the same two files from the controller's release.
    sed -i -E 's#^- https://.*\.(crds|deployment)\.yaml$#- \1.yaml#' "$work/bases/$controller/kustomization.yaml"
    # Without a notification-controller, the address of one is only a source of failed requests.
    sed -i 's#--events-addr=.*#--events-addr=#' "$work/bases/$controller/patch.yaml"
    printf -- '- ../bases/%s\n' "$controller" >>"$work/install/new.yaml"
  done
  sed -n '/^transformers:/,$p' "$work/install/kustomization.yaml" >>"$work/install/new.yaml"
  mv "$work/install/new.yaml" "$work/install/kustomization.yaml"
  "$kubectl" kustomize "$work/install" >"$out/flux.yaml"
  rm -r "$work"
}

# make_cnpg OUT KUBECTL MANIFEST: the operator, with the image that the node has.
make_cnpg() {
  local out=$1 kubectl=$2 work=$1/work
  mkdir "$work"
  cp "$3" "$work/cnpg.yaml"
  cat >"$work/kustomization.yaml" <<'YAML'
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [cnpg.yaml]
patches:
- target: {kind: Deployment, name: cnpg-controller-manager}
  patch: |-
    - {op: replace, path: /spec/template/spec/containers/0/imagePullPolicy, value: IfNotPresent}
YAML
  "$kubectl" kustomize "$work" >"$out/cnpg.yaml"
  rm -r "$work"
}

# make_barman OUT KUBECTL MANIFEST IMAGE SIDECAR: the plugin, with certificates of its own instead of cert-manager's.
make_barman() {
  local out=$1 kubectl=$2 work=$1/work image=$4 sidecar=$5 name common usage
  mkdir "$work"
  cp "$3" "$work/plugin.yaml"
  for name in client:barman-cloud-client:clientAuth server:barman-cloud:serverAuth; do
    IFS=: read -r name common usage <<<"$name"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=$common" \
      -addext "subjectAltName=DNS:$common" -addext "extendedKeyUsage=$usage" -keyout "$work/$name.key" -out "$work/$name.crt"
    "$kubectl" create secret generic "barman-cloud-$name-tls" --namespace cnpg-system --type kubernetes.io/tls \
      --dry-run=client --output yaml --from-file="tls.key=$work/$name.key" --from-file="tls.crt=$work/$name.crt" --from-file="ca.crt=$work/$name.crt" >"$work/$name.yaml"
  done
  cat >"$work/kustomization.yaml" <<YAML
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [plugin.yaml, client.yaml, server.yaml]
images:
- {name: ${image%:*}-testing, newName: ${image%:*}, newTag: ${image##*:}}
patches:
- patch: "{\$patch: delete, apiVersion: cert-manager.io/v1, kind: Certificate, metadata: {name: barman-cloud-client, namespace: cnpg-system}}"
- patch: "{\$patch: delete, apiVersion: cert-manager.io/v1, kind: Certificate, metadata: {name: barman-cloud-server, namespace: cnpg-system}}"
- patch: "{\$patch: delete, apiVersion: cert-manager.io/v1, kind: Issuer, metadata: {name: selfsigned-issuer, namespace: cnpg-system}}"
- target: {kind: Secret, name: plugin-barman-cloud-.*}
  patch: |-
    - {op: replace, path: /data/SIDECAR_IMAGE, value: $(printf %s "$sidecar" | base64 --wrap 0)}
# It listens within a second; upstream asks for the first time after ten.
- target: {kind: Deployment, name: barman-cloud}
  patch: |-
    - {op: replace, path: /spec/template/spec/containers/0/readinessProbe/initialDelaySeconds, value: 1}
    - {op: replace, path: /spec/template/spec/containers/0/readinessProbe/periodSeconds, value: 1}
YAML
  # The keys of a throwaway cluster, but keys.
  (umask 077 && "$kubectl" kustomize "$work" >"$out/barman-cloud.yaml")
  if grep -n cert-manager.io "$out/barman-cloud.yaml"; then return 1; fi
  rm -r "$work"
}

# make_servers OUT SOURCE KEY S3_IMAGE GIT_IMAGE: this project's two servers for a drill.
make_servers() {
  sed "s#@IMAGE@#$4#" "$2/object-store.yaml" >"$1/object-store.yaml"
  sed "s#@IMAGE@#$5#" "$2/git-server.yaml" >"$1/git-server.yaml"
}

# check_images OUT FILE…: every image that the manifests name is one that the node has, and none is asked to be pulled.
make_check() {
  local out=$1 known=$2 reference status=0
  shift 2
  { sed -nE 's/^[ -]*image: *"?([^" ]+)"?$/\1/p' "$@" && sed -n 's/^ *SIDECAR_IMAGE: *\([^ ]*\)$/\1/p' "$@" | base64 --decode && echo; } |
    sort -u | sed '/^$/d' >"$out/named"
  [[ -s $out/named ]]
  while read -r reference; do
    [[ " $known " == *" $reference "* ]] || {
      echo "a manifest names the image $reference, and the kit has none of that name"
      status=1
    }
  done <"$out/named"
  if grep -n 'imagePullPolicy: Always' "$@"; then
    echo "a manifest asks for an image to be pulled, and nothing can be"
    status=1
  fi
  return "$status"
}

build_manifests() {
  local kubectl=${made[programs-kubernetes]}/kubectl controller sources=() name known=() file files=()
  for controller in source-controller kustomize-controller; do
    sources+=("$controller=$(module_dir "$controller" "github.com/fluxcd/$controller")")
  done
  result manifest-flux "Flux's manifest" make_flux "$kubectl" "$(module_dir flux github.com/fluxcd/flux2/v2)" "${sources[@]}"
  result manifest-cnpg "CNPG's manifest" make_cnpg "$kubectl" "$(cnpg_manifest)"
  result manifest-barman "the Barman Cloud plugin's manifest" make_barman "$kubectl" \
    "$(module_dir barman-cloud github.com/cloudnative-pg/plugin-barman-cloud)/manifest.yaml" \
    "$(<"${made[image-plugin-barman-cloud]}/reference")" "$(<"${made[image-plugin-barman-cloud-sidecar]}/reference")"
  result manifest-servers "the manifests of the S3 and the Git server" make_servers "$here/manifests" \
    "$(hash_of_files "$here"/manifests/*)" "$(<"${made[image-versitygw]}/reference")" "$(<"${made[image-git-server]}/reference")"
  for name in "${image_names[@]}"; do known+=("$(<"${made[image-$name]}/reference")"); done
  for file in flux cnpg barman servers; do files+=("${made[manifest-$file]}"/*.yaml); done
  result manifest-check "checking that the kit has every image that a manifest names" make_check "${known[*]}" "${files[@]}"
}
