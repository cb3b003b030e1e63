#!/bin/sh
# Add a machine to build-nodes.yaml: ./add-node.sh asks; ./add-node.sh --help lists the options.
set -eu
cd -- "$(dirname -- "$0")"
make -s venv
exec .venv/bin/orchestrator nodes add "$@"
