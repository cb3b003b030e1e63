#!/bin/sh
# Release a version: ./build.sh --version 1.4.0 [--dry-run]; ./build.sh --help lists the options.
set -eu
cd -- "$(dirname -- "$0")"
make -s venv
exec .venv/bin/orchestrator release "$@"
