#!/usr/bin/env bash
# Trains in several processes: bash tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
# For several machines, set NNODES, NODE_RANK, MASTER_ADDR and PORT, and run the script on each of them.
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
need tools/train.py "CONFIG GPUS" "$@"
dist tools/train.py "$2" "$1" "${@:3}"
