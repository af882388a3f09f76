#!/bin/sh
# Makes the image's root directory: assemble.sh BINARY DIRECTORY. The Dockerfile copies what is then in it, and
# tests/image runs the binary from it.
set -eu
umask 022

binary=$1
root=$2
authorities=/etc/ssl/certs/ca-certificates.crt

mkdir -p "$root/usr/bin" "$root/etc/ssl/certs"
# Function names stay for backtraces; the rest of what debuggers read goes.
strip --strip-debug -o "$root/usr/bin/countersign" "$binary"
chmod 0755 "$root/usr/bin/countersign"

# The loader and the libraries, each at the path where the loader looks for it. A library that is missing is an error.
libraries=$(ldd "$root/usr/bin/countersign")
if echo "$libraries" | grep -q 'not found'; then
    echo "$libraries" >&2
    exit 1
fi
for library in $(echo "$libraries" | grep -o '/[^ ]*'); do
    mkdir -p "$root$(dirname "$library")"
    cp --dereference --preserve=mode "$library" "$root$library"
done

cp --dereference "$authorities" "$root$authorities"
echo 'countersign:x:65532:65532:countersign:/nonexistent:/nonexistent' > "$root/etc/passwd"
echo 'countersign:x:65532:' > "$root/etc/group"
# Names are looked up in the hosts file that the engine mounts, then by DNS.
echo 'hosts: files dns' > "$root/etc/nsswitch.conf"

# Where volumes are mounted. Without one for its file the embedded store lasts as long as the container. They are open to every
# user because a COPY need not keep owners; there is one user.
mkdir -p "$root/etc/countersign" "$root/run/countersign" "$root/var/lib/countersign"
chmod 1777 "$root/run/countersign" "$root/var/lib/countersign"
