# The node image: Debian, containerd, Kubernetes, and every image of the kit unpacked in containerd, so that a pod starts without a pull or
# an unpacking. Sourced, never run. Needs cache.sh, debian.sh and images.sh.
# shellcheck shell=bash disable=SC2154 # kit and here are set by the script that sources this

NODE_PACKAGES="systemd systemd-sysv dbus conntrack iptables nftables iproute2 ethtool util-linux mount kmod libseccomp2 pigz e2fsprogs bash"
NODE_PACKAGES+=" curl jq procps socat runc containerd"

# finish_node TREE FILES PAUSE: what kind's own base image adds to its packages (images/base/Dockerfile of that module), for Debian's
# containerd.
finish_node() {
  local tree=$1 files=$2 pause=$3
  as_root cp --recursive --no-preserve=mode,ownership "$files/." "$tree/"
  as_root chroot "$tree" bash -euc '
    chmod 755 /usr/local/bin/* /kind/bin/*
    find /lib/systemd/system/sysinit.target.wants/ -name systemd-tmpfiles-setup.service -delete
    rm -f /lib/systemd/system/multi-user.target.wants/* /etc/systemd/system/*.wants/* /lib/systemd/system/local-fs.target.wants/* \
      /lib/systemd/system/sockets.target.wants/*udev* /lib/systemd/system/sockets.target.wants/*initctl* \
      /lib/systemd/system/basic.target.wants/* /lib/systemd/system/containerd.service
    echo ReadKMsg=no >>/etc/systemd/journald.conf
    sed -i "s,/usr/local/bin/containerd,/usr/bin/containerd," /etc/systemd/system/containerd.service
    systemctl enable kubelet.service containerd.service undo-mount-hacks.service
    systemctl mask systemd-binfmt.service
    ctr oci spec | jq ".hooks.createContainer += [{path: \"/kind/bin/mount-product-files.sh\"}] | del(.process.rlimits)" >/etc/containerd/cri-base.json
    mkdir -p /etc/kubernetes/manifests /kind/manifests /etc/cni/net.d /opt/cni/bin
  '
  # The image of pause that kubeadm names; and no lowering of scores below our own, which takes a capability that the machine may not have.
  as_root sed -i "s#sandbox_image = .*#sandbox_image = \"$pause\"#; s#restrict_oom_score_adj = false#restrict_oom_score_adj = true#" \
    "$tree/etc/containerd/config.toml"
  grep -q "$pause" "$tree/etc/containerd/config.toml"
  grep -q 'restrict_oom_score_adj = true' "$tree/etc/containerd/config.toml"
  # One node has one range of addresses, the first: kubeadm gives it out of kind's default pod subnet. No daemon is needed to say so.
  as_root tee "$tree/etc/cni/net.d/10-ptp.conflist" >/dev/null <<'JSON'
{"cniVersion": "0.4.0", "name": "kit", "plugins": [
  {"type": "ptp", "ipMasq": true, "ipam": {"type": "host-local", "dataDir": "/run/cni-ipam-state", "routes": [{"dst": "0.0.0.0/0"}],
    "ranges": [[{"subnet": "10.244.0.0/24"}]]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
  as_root rm -rf "$tree/usr/lib/udev/hwdb.bin" "$tree/usr/lib/udev/hwdb.d"
}

# make_node_kubernetes OUT VERSION KUBERNETES CNI KIND_SOURCE PROVISIONER HELPER: the layer with the node's own programs and kind's
# manifests.
make_node_kubernetes() {
  local out=$1 version=$2 kubernetes=$3 cni=$4 kind_source=$5 provisioner=$6 helper=$7 tree=$1/tree
  mkdir -p "$tree"/usr/bin "$tree"/opt/cni/bin "$tree"/kind/manifests
  install -m 755 "$kubernetes"/{kubeadm,kubelet,kubectl} "$tree/usr/bin/"
  install -m 755 "$cni"/* "$tree/opt/cni/bin/"
  printf '%s' "$version" >"$tree/kind/version"
  # kind applies this file and wants it there; the network itself is configured in /etc/cni/net.d.
  cat >"$tree/kind/manifests/default-cni.yaml" <<'YAML'
apiVersion: v1
kind: ConfigMap
metadata: {name: network, namespace: kube-system}
data: {plugin: ptp, nodes: "1"}
YAML
  # A constant in the source: what stands between the backquotes, with the two names of images put in.
  awk '/^const defaultStorageManifest = `/ { inside = 1; next } inside && /^`/ { exit } inside { print }' \
    "$kind_source/pkg/build/nodeimage/const_storage.go" |
    sed "s#\` + storageProvisionerImage + \`#$provisioner#; s#\` + storageHelperImage + \`#$helper#" >"$tree/kind/manifests/default-storage.yaml"
  grep -q "image: $provisioner" "$tree/kind/manifests/default-storage.yaml"
  grep -q -- "- $helper" "$tree/kind/manifests/default-storage.yaml"
  if grep '`' "$tree/kind/manifests/default-storage.yaml"; then return 1; fi
  pack_program_layer "$tree" "$out/layer.tar"
  rm -r "$tree"
}

# make_store OUT BASE NODE IMAGE_DIR…: the layer with containerd's store, filled by the node's own containerd in a tree of the node.
make_store() {
  local out=$1 base=$2 node=$3 tree=$1/tree
  shift 3
  mkdir "$tree"
  as_root tar -C "$tree" --extract --numeric-owner --xattrs --xattrs-include='*' --file "$base/layer.tar"
  as_root tar -C "$tree" --extract --numeric-owner --xattrs --xattrs-include='*' --file "$node/layer.tar"
  mkdir -p "$out/exchange/layers"
  # Compressed: unpacked as they are too, the layers are only read again to be exported, and kind copies the whole store for each cluster.
  compress_layers "$out/exchange/layers" "$@"
  write_archive "$out/exchange/images.tar" "$out/exchange/layers" "$@"
  # In a mount namespace of its own: whatever stays mounted goes with it.
  as_root unshare --mount --propagation private bash -euo pipefail -s "$tree" "$out/exchange" <<'SH'
tree=$1 exchange=$2
mount -t proc proc "$tree/proc"
mount --rbind /dev "$tree/dev"
mount -t tmpfs tmpfs "$tree/run"
mount -t tmpfs tmpfs "$tree/tmp"
mkdir "$tree/mnt/exchange"
mount --bind "$exchange" "$tree/mnt/exchange"
printf 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n' >"$tree/tmp/config.toml"
chroot "$tree" containerd --config /tmp/config.toml >&2 &
containerd=$!
trap 'kill $containerd; wait $containerd || true' EXIT
for ((tries = 0; tries < 100; tries++)); do
  ! chroot "$tree" ctr version >/dev/null 2>&1 || break
  sleep 0.1
done
# Pinned: the kubelet removes images that are not in use when the disk is nearly full, and nothing could bring these back.
import() {
  chroot "$tree" ctr --namespace k8s.io images import --label io.cri-containerd.pinned=pinned "$@" /mnt/exchange/images.tar
}
# Unpacking takes an overlay mount, which a file system that is an overlay itself refuses: then each node unpacks what it starts.
import || import --no-unpack
chroot "$tree" ctr --namespace k8s.io images ls >"$exchange/images"
umount "$tree/mnt/exchange"
rmdir "$tree/mnt/exchange"
SH
  as_root mv "$out/exchange/images" "$out/images"
  (cd "$tree" && as_root find ./var/lib/containerd -print0) | store_layer "$tree" "$out/layer.tar"
  remove_tree "$out/exchange"
  remove_tree "$tree"
}

# store_layer TREE FILE: nothing left out: an unpacked image has the very directories that layer_of does not take. Without the attributes
# that an overlay mount leaves on directories: they speak of this machine's inodes.
store_layer() {
  as_root tar -C "$1" --create --no-recursion --numeric-owner --xattrs --xattrs-include='*' --xattrs-exclude='trusted.*' \
    --null --files-from=- >"$2"
  sha256sum "$2" | cut -d ' ' -f 1 >"${2%.tar}.sha256"
}

build_node() {
  local kubernetes kind_source name dirs=() config
  kubernetes=$(module_version kubernetes k8s.io/kubernetes)
  kind_source=$(module_dir kind sigs.k8s.io/kind)
  debian_layer node "$NODE_PACKAGES" finish_node "$kind_source/images/base/files" "$(<"${made[image-pause]}/reference")"
  result node-kubernetes "layer with Kubernetes $kubernetes for the node" "make_node_kubernetes pack_program_layer" "$kubernetes" \
    "${made[programs-kubernetes]}" "${made[programs-cni]}" "$kind_source" "$(<"${made[image-local-path-provisioner]}/reference")" \
    "$(<"${made[image-base]}/reference")"
  for name in "${image_names[@]}"; do dirs+=("${made[image-$name]}"); done
  result store "containerd's store with ${#image_names[@]} images, unpacked" "make_store store_layer write_archive compress_layers" \
    "${made[debian]}" "${made[layer-node]}" "${dirs[@]}"
  config='{"Entrypoint":["/usr/local/bin/entrypoint","/sbin/init"],"Env":["container=docker"],"StopSignal":"SIGRTMIN+3"}'
  # The tag holds what is in it: a node image of another kit is never taken for this one.
  name=$(hash_of "$config" "${made[debian]}" "${made[layer-node]}" "${made[node-kubernetes]}" "${made[store]}")
  image node "turnback-kit/node:$kubernetes-${name:0:12}" "$config" debian layer-node node-kubernetes store
}

# kit_load: the engine has this kit's node image, and no other kit's.
kit_load() {
  local reference id other
  reference=$(jq -r .node.image "$kit/kit.json" 2>/dev/null) || fail 1 "there is no kit in $kit" "scripts/offline/kit build"
  id=$(jq -r .node.id "$kit/kit.json")
  kit_engine
  if [[ $(docker image inspect --format '{{.Id}}' "$reference" 2>/dev/null) == "$id" ]]; then
    say "the engine has $reference"
    return 0
  fi
  timed "loading $reference into the engine" load_node ||
    fail 1 "the engine did not take the node image" "read its message above; is its disk full?"
  [[ $(docker image inspect --format '{{.Id}}' "$reference") == "$id" ]] || fail 1 "the engine gave $reference another id than $id"
  docker image ls --format '{{.Repository}}:{{.Tag}}' turnback-kit/node | while read -r other; do
    [[ $other == "$reference" ]] || docker image rm "$other" >/dev/null 2>&1 || say "   $other stays: a cluster uses it"
  done
}

load_node() { write_archive - '' "$(jq -r .node.description "$kit/kit.json")" | docker load --quiet; }
