#!/bin/sh
# One node's release with `ssh` and `scp`, for `xargs -P`.
# release_node.sh SSH_CONFIG JOB_FOLDER SOURCE VERSION NAME TARGET NODE_FOLDER BUILD_FILE
set -eu
ssh -n -F "$1" "$5" "mkdir -p $7"
scp -q -F "$1" "$3" "$5:$7/source.tar.gz"
ssh -F "$1" "$5" sh -s <"$8"
scp -q -F "$1" "$5:$7/out/trajectory" "$2/$5"
sh "${0%/*}/finish.sh" "$2" "$4" "$6" "$2/$5"
