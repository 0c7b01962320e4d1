#!/usr/bin/env bash
# Evaluates in several processes: bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]
# Several machines: set NNODES, NODE_RANK, MASTER_ADDR and PORT, and run it on each.
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
need tools/test.py "CONFIG CHECKPOINT GPUS" "$@"
dist tools/test.py "$3" "$1" "$2" "${@:4}"
