#!/usr/bin/env bash
# Evaluates under Slurm: [GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=5 SRUN_ARGS=... PORT=...] \
#   bash tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of tools/test.py]
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
need tools/test.py "PARTITION JOB_NAME CONFIG CHECKPOINT" "$@"
slurm "$1" "$2" tools/test.py "${@:3}"
