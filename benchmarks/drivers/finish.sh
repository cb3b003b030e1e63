#!/bin/sh
# What comes after collecting, the same for every peer: archive, checksum, signature, store.
# finish.sh JOB_FOLDER VERSION TARGET BINARY
set -eu
name="trajectory-$2-$3"
place="$1/out/releases/$2/$3"
stage="$1/stage/$name"
mkdir -p "$place" "$stage"
cp "$4" "$stage/trajectory"
chmod 755 "$stage/trajectory"
tar -C "$1/stage" -czf "$place/$name.tar.gz" "$name"
cd "$place"
sha256sum "$name.tar.gz" >"$name.tar.gz.sha256"
ssh-keygen -q -Y sign -f "$1/key" -n artifact "$name.tar.gz" 2>/dev/null
printf '%s %s %s\n' "$2" "$3" "$(cut -d ' ' -f 1 "$name.tar.gz.sha256")" >"$1/out/releases/$2/$3.row"
