#!/usr/bin/env bash
# Tests the chart with the real helm, 3 and 4, and with the own code of the oldest and the newest Kubernetes.
#
#     TEST_COUNTERSIGN=… run.sh SCRATCH-DIRECTORY
#
# Both decode every manifest strictly, into their types, and judge each pod by their Pod Security Standards; the newest also judges every
# manifest as its API server does, and with THOROUGH=1 the oldest does, too.
#
# Everything comes from the Go module proxy and is built below the scratch directory. The Kubernetes module names the others of its
# release by version 0.0.0, which is nowhere: each gets the version that the release stands for.
set -euo pipefail

readonly HELM3=helm.sh/helm/v3@v3.22.0 HELM4=helm.sh/helm/v4@v4.3.1
readonly POD_MONITOR=github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring@v0.95.2
readonly OLDEST=29.15 NEWEST=37.2

scratch=$(realpath --canonicalize-missing "$1")
cd "$(dirname "$0")"
export GOFLAGS=-mod=mod GOTOOLCHAIN=local
mkdir -p "$scratch/charts"

# A go.mod for the tests beside Kubernetes 1.$1, kept for as long as this script stays as it is.
module() {
    local release=$1 file=$scratch/kubernetes-1.$1.mod
    if [[ ! $file -nt run.sh ]]; then
        local theirs
        theirs=$(GOFLAGS='' go mod download -json "k8s.io/kubernetes@v1.$release" | sed -n 's/.*"GoMod": "\(.*\)".*/\1/p')
        {
            cat go.mod
            echo "require k8s.io/kubernetes v1.$release"
            sed -n "s,^\t\(k8s.io/[a-z-]*\) => ./staging/.*,replace \1 => \1 v0.$release,p" "$theirs"
        } > "$file.new"
        rm -f "${file%.mod}.sum"
        mv "$file.new" "$file"
        # Both helms are built from the same modules as the tests, so that what all need is compiled once.
        [[ $release != "$NEWEST" ]] ||
            go get -modfile="$file" "$HELM3" "$HELM4" "$POD_MONITOR" || { rm "$file"; return 1; }
    fi
    echo "$file"
}

# Tests with helm $1 and Kubernetes 1.$2.
run() {
    local helm=$1 release=$2 file tags
    file=$(module "$release")
    # To compile an API server takes minutes, so that of the oldest judges only where it is asked to.
    tags=$([[ $release == "$OLDEST" ]] || echo newest,)$([[ $release == "$OLDEST" && -z ${THOROUGH:-} ]] || echo server)
    export TEST_HELM=$scratch/helm$helm TEST_HELM_SCRATCH=$scratch/charts
    go build -modfile="$newest" -o "$TEST_HELM" "helm.sh/helm/v$helm/cmd/helm"
    echo "helm $("$TEST_HELM" version --short), Kubernetes 1.$release"
    # What vet has to say of Kubernetes takes minutes to find out.
    go test -count=1 -vet=off -modfile="$file" -tags="$tags" ${TEST_FLAGS:-} .
}

newest=$(module "$NEWEST")
run 4 "$NEWEST"
run 3 "$OLDEST"
