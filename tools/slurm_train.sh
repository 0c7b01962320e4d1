#!/usr/bin/env bash
# Trains under Slurm: [GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=5 SRUN_ARGS=... PORT=...] \
#   bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of tools/train.py]
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
need tools/train.py "PARTITION JOB_NAME CONFIG" "$@"
slurm "$1" "$2" tools/train.py "${@:3}"
