#!/usr/bin/env bash
# Installs the resource and the operator on the cluster of KUBECONFIG; without it, on the test cluster, where it also
# makes the volume and the world of manifests/examples/quickstart.yaml.
set -euo pipefail
cd "$(dirname "$0")/.."

kubectl=$(command -v kubectl || true)
test_cluster=
if [ -z "${KUBECONFIG:-}" ] || [ "$(realpath -m "$KUBECONFIG")" = "$PWD/.cluster/kubeconfig" ]; then
	test -f .cluster/kubeconfig || { echo "no cluster: run \`make cluster\`, or set KUBECONFIG" >&2; exit 1; }
	export KUBECONFIG=$PWD/.cluster/kubeconfig
	kubectl=$PWD/.cluster/bin/kubectl
	test_cluster=yes
fi
test -n "$kubectl" || { echo "kubectl is not installed; it is needed to talk to the cluster of KUBECONFIG" >&2; exit 1; }

"$kubectl" apply --server-side -f manifests/crd/selftaughtruns.yaml
"$kubectl" wait --for=condition=Established --timeout=60s crd/selftaughtruns.selftaught.dev
"$kubectl" apply --server-side -f manifests/deploy/namespace.yaml
"$kubectl" apply --server-side -f manifests/deploy/rbac.yaml -f manifests/deploy/operator.yaml
"$kubectl" -n selftaught-system rollout status --timeout=180s deployment/selftaught-operator
if [ -n "$test_cluster" ]; then
	"$kubectl" apply -f manifests/quickstart-world.yaml
	echo "building the quick start's world and its seed model (a minute or two)"
	"$kubectl" wait --for=condition=Complete --timeout=15m job/quickstart-world
	echo "now: export KUBECONFIG=$KUBECONFIG; kubectl apply -f manifests/examples/quickstart.yaml"
fi
