# The kit's test of itself: a cluster from nothing, a release through Git and Flux that damages data, and the way back to the moment before
# it. Sourced, never run.
# shellcheck shell=bash disable=SC2154 # here and kit are set by the script that sources this

TRY_CLUSTER=turnback-kit-try

# phase NAME COMMAND…: runs it, in the log; what it took goes into the table at the end. A command that fails ends the script, there and
# then, and try_end says so: in a condition bash would go on after it.
phase() {
  local begin
  phase=$1
  begin=$(now_us)
  say "== $phase"
  shift
  "$@" >>"$try_log" 2>&1
  phases+=("$(printf '%-44s %s' "$phase" "$(span $(($(now_us) - begin)))")")
  phase=''
  say "   done in $(span $(($(now_us) - begin)))"
}

# try_end: what is left to do when the script ends, in whatever way. fd 7 is the script's own stderr.
try_end() {
  [[ -z $forward ]] || kill "$forward" 2>/dev/null || true
  if [[ -z $phase ]]; then
    rm -rf "$work"
    return 0
  fi
  try_evidence
  {
    say "   failed; the end of $try_log before the evidence:"
    sed '/^== evidence/,$d' "$try_log" | tail -n 15 | sed 's/^/   | /'
    say "error: the kit does not do what it is for: $phase"
    say "  hint: the cluster stays for a look: KUBECONFIG=$KUBECONFIG $KIT_KUBECTL get pods -A"
    say "  hint: scripts/offline/kit down deletes it"
  } 2>&7 >&7
}

# try_evidence: what a person would ask for next.
try_evidence() {
  {
    echo "== evidence"
    k get pods --all-namespaces --output wide
    k get events --all-namespaces --sort-by .lastTimestamp | tail -n 30
    k get gitrepositories,kustomizations,clusters.postgresql.cnpg.io,backups --all-namespaces
  } >>"$try_log" 2>&1 || true
}

k() { "$KIT_KUBECTL" "$@"; }

# until_done SECONDS COMMAND…: tries it again until it succeeds.
until_done() {
  local seconds=$1 begin=$SECONDS
  shift
  until "$@"; do
    ((SECONDS - begin < seconds)) || return 1
    read -r -t 0.2 <> <(:) || true
  done
}

try_create() {
  local patch='' config=$work/kind.yaml
  # The kubelet of this Kubernetes refuses cgroup v1 unless it is told that it is meant.
  [[ $(docker info --format '{{.CgroupVersion}}') != 1 ]] ||
    patch='kubeadmConfigPatches: ["{kind: KubeletConfiguration, apiVersion: kubelet.config.k8s.io/v1beta1, failCgroupV1: false}"]'
  printf 'kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes: [{role: control-plane}]\n%s\n' "$patch" >"$config"
  "$KIT_KIND" create cluster --name "$TRY_CLUSTER" --image "$KIT_NODE_IMAGE" --config "$config" --wait 120s
}

try_install() {
  k apply --server-side --filename "$KIT_FLUX" --filename "$KIT_CNPG" --filename "$KIT_OBJECT_STORE" --filename "$KIT_GIT_SERVER"
  # The namespace is in CNPG's manifest.
  k apply --server-side --filename "$KIT_BARMAN_CLOUD"
  k --namespace object-store create secret generic object-store --from-literal=ACCESS_KEY_ID=try --from-literal=ACCESS_SECRET_KEY="$secret"
  k create namespace try
  k --namespace try create secret generic object-store --from-literal=ACCESS_KEY_ID=try --from-literal=ACCESS_SECRET_KEY="$secret"
}

# rolled_out NAMESPACE DEPLOYMENT…
rolled_out() {
  local namespace=$1 deployment
  shift
  for deployment in "$@"; do k --namespace "$namespace" rollout status "deployment/$deployment" --timeout 120s; done
}

try_forward() {
  k --namespace git-server port-forward service/git-server :80 >"$work/forward" 2>&1 8>&- &
  forward=$!
  until_done 15 grep -q '^Forwarding from 127' "$work/forward"
  url=http://127.0.0.1:$(sed -n 's/^Forwarding from 127.0.0.1:\([0-9]*\).*/\1/p' "$work/forward" | head -n 1)/fleet.git
}

# commit MESSAGE: what lies in $work/fleet becomes the next revision, pushed; prints nothing, sets `revision`.
commit() {
  git -C "$work/fleet" add --all
  git -C "$work/fleet" -c user.name=kit -c user.email=kit@turnback.invalid commit --quiet --message "$1"
  # In chunks, as libgit2 does and git beyond a megabyte.
  git -C "$work/fleet" -c http.postBuffer=65536 push --quiet "$url" HEAD:main
  revision=main@sha1:$(git -C "$work/fleet" rev-parse HEAD)
}

# kustomization FILES: what of the repository Flux applies.
kustomization() {
  printf 'apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [%s]\n' "$*" >"$work/fleet/kustomization.yaml"
}

try_first_push() {
  git init --quiet --initial-branch main "$work/fleet"
  sed "s#@IMAGE@#$KIT_POSTGRESQL_IMAGE#" "$here/trial/origin.yaml" >"$work/fleet/origin.yaml"
  # A push of megabytes that do not compress: 6 MB.
  head -c 6000000 /dev/urandom >"$work/fleet/ballast.bin"
  kustomization origin.yaml
  commit "Add a database"
  git ls-remote "$url" main | grep -q "${revision#*:}"
  k apply --filename "$here/trial/flux.yaml"
}

# applied: Flux has fetched the revision and applied it.
applied() {
  local token=$RANDOM$RANDOM
  k --namespace flux-system annotate --overwrite gitrepository/fleet "reconcile.fluxcd.io/requestedAt=$token"
  k --namespace flux-system wait --for=jsonpath='{.status.artifact.revision}'="$revision" gitrepository/fleet --timeout 60s
  k --namespace flux-system annotate --overwrite kustomization/fleet "reconcile.fluxcd.io/requestedAt=$token"
  k --namespace flux-system wait --for=jsonpath='{.status.lastAppliedRevision}'="$revision" kustomization/fleet --timeout 120s
}

# q CLUSTER SQL: one answer of its primary.
q() { k --namespace try exec "$1-1" --container postgres -- psql --username postgres --dbname app --tuples-only --no-align --command "$2"; }

cluster_ready() {
  until_done 30 k --namespace try get "cluster.postgresql.cnpg.io/$1"
  k --namespace try wait --for=condition=Ready "cluster.postgresql.cnpg.io/$1" --timeout 240s
}

try_archiving() {
  k --namespace try wait --for=condition=ContinuousArchiving cluster.postgresql.cnpg.io/origin --timeout 120s
}

try_backup() {
  q origin 'create table ledger as select g as id, md5(g::text) as entry from generate_series(1, 1000) g'
  k apply --filename "$here/trial/backup.yaml"
  k --namespace try wait --for=jsonpath='{.status.phase}'=completed backup.postgresql.cnpg.io/first --timeout 120s
}

# segment_archived: the segment that holds the sentinel is in the bucket.
segment_archived() { [[ $(q origin "select last_archived_wal >= '$segment' from pg_stat_archiver") == t ]]; }

try_damage() {
  target=$(q origin "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00'")
  q origin "update ledger set entry = 'damaged' where id <= 500"
  q origin "select pg_logical_emit_message(true, 'turnback', 'sentinel')"
  segment=$(q origin "select pg_walfile_name(pg_switch_wal())")
  until_done 60 segment_archived
}

try_recovery() {
  sed "s#@IMAGE@#$KIT_POSTGRESQL_IMAGE#; s#@TARGET@#$target#" "$here/trial/restored.yaml" >"$work/fleet/restored.yaml"
  kustomization origin.yaml, restored.yaml
  commit "Recover the database beside the damaged one"
  applied
}

try_comparison() {
  [[ $(q origin "select count(*) from ledger where entry = 'damaged'") == 500 ]]
  [[ $(q restored "select count(*) from ledger") == 1000 ]]
  [[ $(q restored "select count(*) from ledger where entry = md5(id::text)") == 1000 ]]
  [[ $(q restored "select timeline_id from pg_control_checkpoint()") == 2 ]]
  [[ $(q restored "select system_identifier from pg_control_system()") == $(q origin "select system_identifier from pg_control_system()") ]]
}

# try_application: an image of the kit's base with another executable comes into the node and runs.
try_application() {
  kit_app "$KIT_KIND" turnback.invalid/try:now |
    docker exec --interactive "$TRY_CLUSTER-control-plane" ctr --namespace k8s.io images import -
  k --namespace try run app --image turnback.invalid/try:now --image-pull-policy Never --restart Never -- version
  k --namespace try wait --for=jsonpath='{.status.phase}'=Succeeded pod/app --timeout 60s
}

kit_try() {
  local secret phases=() url revision target segment begin line
  kit_load
  eval "$(kit_env)"
  # Not local: try_end reads them after everything has returned.
  phase='' forward=''
  work=$(mktemp -d "${TMPDIR:-/tmp}/turnback-kit-try.XXXXXX")
  try_log=$kit/logs/try.log
  secret=$(openssl rand -hex 16)
  export KUBECONFIG=$work/kubeconfig
  : >"$try_log"
  exec 7>&2
  trap try_end EXIT
  "$KIT_KIND" delete cluster --name "$TRY_CLUSTER" >>"$try_log" 2>&1
  begin=$(now_us)

  phase "kind cluster, node Ready" try_create
  phase "applying Flux, CNPG, plugin, S3, Git server" try_install
  phase "Git server and S3 server ready" try_servers_ready
  phase "CNPG's operator ready" rolled_out cnpg-system cnpg-controller-manager
  phase "Barman Cloud plugin ready" rolled_out cnpg-system barman-cloud
  phase "Flux ready" rolled_out flux-system source-controller kustomize-controller
  phase "first push, 6 MB, through a port-forward" try_first_push
  phase "Flux applied that revision" applied
  phase "database cluster Ready" cluster_ready origin
  phase "WAL archived" try_archiving
  phase "base backup completed" try_backup
  phase "damage, sentinel and its segment archived" try_damage
  phase "recovery cluster pushed and applied by Flux" try_recovery
  phase "recovery cluster Ready" cluster_ready restored
  phase "both compared, timeline, system identifier" try_comparison
  phase "application image imported and run" try_application
  say "from nothing to here: $(span $(($(now_us) - begin)))"
  phase "deleting the cluster" kit_down
  say "" && say "== the kit works; phases:"
  for line in "${phases[@]}"; do say "   $line"; done
}

try_servers_ready() {
  rolled_out git-server git-server
  rolled_out object-store object-store
  try_forward
}

kit_down() {
  eval "$(kit_env)"
  "$KIT_KIND" delete cluster --name "$TRY_CLUSTER"
}
