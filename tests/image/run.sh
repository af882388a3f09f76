#!/usr/bin/env bash
# Runs countersign in the image's own files: run.sh BINARY SCRATCH-DIRECTORY, as root.
#
# buildah builds the Dockerfile's last stage, which copies what the script assemble.sh made of the binary. The files of that image
# are mounted read-only and entered by chroot as its user, with no capability, in name spaces of their own for mounts, processes and
# the network. What the kubelet would mount is mounted as the kubelet does it. Prints a line for each thing that holds; the first
# that doesn't ends it.
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
binary=$(realpath "$1")
scratch=$2

# The image, and its files in $scratch/root. The first stage is a build of the whole program: its result is given instead.
build() {
    local dockerfile=$here/../../Dockerfile
    "$here/../../helm/image/assemble.sh" "$binary" "$scratch/build/image"
    sed -n '/^FROM scratch$/,$p' "$dockerfile" > "$scratch/Dockerfile"
    local engine=(buildah --root "$scratch/store" --runroot "$scratch/engine" --storage-driver vfs)
    "${engine[@]}" bud --quiet --isolation chroot --build-context "build=$scratch/build" --tag countersign \
        --file "$scratch/Dockerfile" "$scratch/build" > /dev/null
    "${engine[@]}" inspect --type image --format \
        '{{.OCIv1.Config.User}} {{.OCIv1.Config.Entrypoint}} {{.OCIv1.Config.Cmd}}' countersign > "$scratch/says"
    local container
    container=$("${engine[@]}" from countersign)
    cp --archive "$("${engine[@]}" mount "$container")" "$scratch/root"
    # What a build would be given: .dockerignore lets nothing through that it doesn't name.
    printf 'FROM scratch\nCOPY . /\n' > "$scratch/Context"
    "${engine[@]}" bud --quiet --isolation chroot --ignorefile "$here/../../.dockerignore" --tag context \
        --file "$scratch/Context" "$here/../.." > /dev/null
    container=$("${engine[@]}" from context)
    cp --archive "$("${engine[@]}" mount "$container")" "$scratch/context"
    cargo metadata --manifest-path "$scratch/context/Cargo.toml" --no-deps --locked --format-version 1 > "$scratch/metadata"
}

if [[ ${3:-} != inside ]]; then
    rm -rf "$scratch"
    mkdir -p "$scratch"
    scratch=$(realpath "$scratch")
    build
    exec unshare --mount --mount-proc --pid --net --fork --propagation private "$0" "$binary" "$scratch" inside
fi

root=$scratch/root
passed=0

holds() {
    passed=$((passed + 1))
    echo "ok  $1"
}

fail() {
    echo "FAILED  $1" >&2
    [[ -f $scratch/log ]] && cat "$scratch/log" >&2
    exit 1
}

# As the container would be: the user, no capability, no way to more.
contained() {
    setpriv --no-new-privs chroot --userspec=65532:65532 --groups=65532 "$root" /usr/bin/countersign "$@"
}

mount_read_only() {
    # An engine makes these in every container.
    mkdir -p "$root/proc" "$root/dev" "$root/etc/countersign/config"
    mount --bind "$root" "$root"
    mount -o remount,bind,ro,nosuid "$root"
    ip link set lo up
}

mount_as_the_kubelet_does() {
    mount -t proc -o ro,nosuid,nodev,noexec proc "$root/proc"
    # emptyDir of a pod with an fsGroup: open to all, of the group, and so is what is made in it.
    mount -t tmpfs -o size=1m,mode=2777,gid=65532,nosuid,nodev,noexec socket "$root/run/countersign"
    mount -t tmpfs -o size=64m,mode=2777,gid=65532,nosuid,nodev,noexec data "$root/var/lib/countersign"
    # A ConfigMap: a directory of links into one that is swapped whole.
    mount -t tmpfs -o size=1m,mode=0755 config "$root/etc/countersign/config"
    mkdir "$root/etc/countersign/config/..1"
    configuration > "$root/etc/countersign/config/..1/countersign.yaml"
    ln -s ..1 "$root/etc/countersign/config/..data"
    ln -s ..data/countersign.yaml "$root/etc/countersign/config/countersign.yaml"
    mount -o remount,ro "$root/etc/countersign/config"
}

# What the chart renders for a pod with one sidecar and nothing said but the issuer.
configuration() {
    sed -n '/^  countersign.yaml: |/,/^---/{/^    /s/^    //p}' "$here/../helm/golden/minimal.yaml"
}

a_build_is_given_the_crate_and_nothing_more() {
    local given
    given=$(ls -A "$scratch/context" | tr '\n' ' ')
    [[ $given == "Cargo.lock Cargo.toml benches build.rs helm proto src " ]] || fail "a build is given $given"
    grep -q '"name":"countersign"' "$scratch/metadata" || fail "cargo finds no crate in what a build is given"
    holds "a build is given the crate, whole to cargo's eyes, and no outputs, keys or history"
}

the_image_has_a_binary_its_libraries_and_no_shell() {
    local found
    found=$(cd "$root" && find . -xdev -type f | sort)
    echo "$found" | grep -qx './usr/bin/countersign' || fail "no binary in the image"
    local other
    other=$(echo "$found" | grep -vxE './usr/bin/countersign|./lib(64)?/.*\.so(\.[0-9]+)*|./etc/(passwd|group|nsswitch\.conf)|./etc/ssl/certs/ca-certificates\.crt' || true)
    [[ -z $other ]] || fail "more than expected in the image: $other"
    [[ -z $(find "$root" -xdev -type f -perm /6002) ]] || fail "a file with setuid or setgid, or open to all, in the image"
    holds "the image has $(echo "$found" | wc -l) files, $(du -sm --apparent-size "$root" | cut -f1) MB with this binary: itself, its libraries, authorities, names"
}

the_root_is_read_only() {
    if touch "$root/written" 2>/dev/null; then fail "the root could be written to"; fi
    holds "the root file system is read-only, for root as well"
}

it_starts_from_these_files_alone() {
    local version
    version=$(contained --version) || fail "countersign --version"
    holds "$version says its version without /proc, /dev or anything mounted"
}

the_image_says_whom_and_what_to_run() {
    local says="65532:65532 [/usr/bin/countersign] [serve --config /etc/countersign/config/countersign.yaml]"
    [[ $(cat "$scratch/says") == "$says" ]] || fail "the image says: $(cat "$scratch/says")"
    contained check --offline --config /etc/countersign/config/countersign.yaml > "$scratch/log" 2>&1 || fail "countersign check"
    holds "the image runs as 65532:65532, and its command finds the chart's configuration, which is good"
}

it_serves_and_is_ready() {
    contained serve --config /etc/countersign/config/countersign.yaml > "$scratch/log" 2>&1 &
    serving=$!
    local tries=0
    until contained health --address 127.0.0.1:9090 > "$scratch/health" 2>&1; do
        tries=$((tries + 1))
        kill -0 "$serving" 2>/dev/null || fail "it ended"
        [[ $tries -lt 100 ]] || fail "it is not ready after 10 s: $(cat "$scratch/health")"
        sleep 0.1
    done
    contained health --address 127.0.0.1:9090 --service liveness > "$scratch/health" 2>&1 || fail "it is not live"
    holds "it serves from a read-only root, and answers its probes"
}

it_runs_as_nobody_in_particular() {
    local pid status
    pid=$(pgrep -f '^/usr/bin/countersign serve' | head -n 1)
    status=$(cat "/proc/$pid/status")
    echo "$status" | grep -qP '^Uid:\t65532\t65532\t65532\t65532$' || fail "its user is another"
    echo "$status" | grep -qP '^Gid:\t65532\t65532\t65532\t65532$' || fail "its group is another"
    echo "$status" | grep -qP '^CapEff:\t0+$' || fail "it has capabilities"
    echo "$status" | grep -qP '^NoNewPrivs:\t1$' || fail "it could gain privileges"
    holds "it runs as 65532:65532, without a capability or a way to gain one"
}

the_socket_is_for_the_group() {
    local api=$root/run/countersign/api
    [[ $(stat -c '%a %u %g %F' "$api") == "770 65532 65532 directory" ]] || fail "the socket's directory: $(stat -c '%a %u %g' "$api")"
    [[ $(stat -c '%a %u %g %F' "$api/api.sock") == "660 65532 65532 socket" ]] || fail "the socket: $(stat -c '%a %u %g' "$api/api.sock")"
    holds "the socket's directory has mode 0770, the socket 0660, both of the pod's group"
}

# An application's container: another user, in the pod's group or not, in a mount name space that shows only the socket.
reaches_the_socket() {
    setpriv --reuid 1000 --regid 1000 "$@" --no-new-privs --bounding-set=-all \
        "$root/usr/bin/countersign" health --service readiness --address "unix:$root/run/countersign/api/api.sock" \
        > "$scratch/health" 2>&1
}

who_is_in_the_group_can_call_and_nobody_else() {
    chmod a+x "$scratch"
    reaches_the_socket --groups 65532 || fail "the pod's group can't call: $(cat "$scratch/health")"
    if reaches_the_socket --clear-groups; then fail "anyone can call through the socket"; fi
    holds "another user of the pod's group reaches the socket; one that isn't doesn't"
}

sigterm_ends_it_with_zero() {
    kill -TERM "$(pgrep -f '^/usr/bin/countersign serve' | head -n 1)"
    local code=0
    wait "$serving" || code=$?
    [[ $code == 0 ]] || fail "it ended with $code"
    [[ ! -e $root/run/countersign/api/api.sock ]] || fail "it left its socket behind"
    holds "SIGTERM ends it, with 0"
}

mount_read_only
a_build_is_given_the_crate_and_nothing_more
the_image_has_a_binary_its_libraries_and_no_shell
the_root_is_read_only
it_starts_from_these_files_alone
mount_as_the_kubelet_does
the_image_says_whom_and_what_to_run
it_serves_and_is_ready
it_runs_as_nobody_in_particular
the_socket_is_for_the_group
who_is_in_the_group_can_call_and_nobody_else
sigterm_ends_it_with_zero
echo "image: $passed passed, 0 failed"
