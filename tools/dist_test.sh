#!/usr/bin/env bash
# Evaluates in several processes: bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]
# For several machines, set NNODES, NODE_RANK, MASTER_ADDR and PORT, and run the script on each of them.
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
need tools/test.py "CONFIG CHECKPOINT GPUS" "$@"
dist tools/test.py "$3" "$1" "$2" "${@:4}"
