# Functions of the scripts that start several processes. Wrong arguments are refused before any process starts.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"

fail() {
    echo "$2" >&2
    exit "$1"
}

# need TOOL NAMES ARGUMENT...: check that there is an argument for each name, and that files and numbers are valid.
need() {
    local tool=$1 names=$2 name
    shift 2
    for name in $names; do
        case "$name=${1-}" in
            "$name=" | "$name=-"*) fail 2 "usage: bash $0 $names [options of $tool]" ;;
            CONFIG=*) [[ -f $1 ]] || fail 1 "error: there is no config file '$1'" ;;
            CHECKPOINT=*) [[ -e $1 ]] || fail 1 "error: there is no checkpoint '$1'" ;;
            GPUS=*) [[ $1 =~ ^[1-9][0-9]*$ ]] || fail 1 "error: GPUS is '$1': give the number of processes, 1 or more" ;;
        esac
        shift
    done
}

# dist TOOL GPUS ARGUMENT...: start GPUS processes of the tool on this machine, which is one of NNODES.
dist() {
    if ((${NNODES:-1} > 1)) && [[ -z ${MASTER_ADDR:-} || -z ${NODE_RANK:-} ]]; then
        fail 1 "error: NNODES=$NNODES needs MASTER_ADDR (of the first machine) and NODE_RANK (0 there, then 1, 2, ...)"
    fi
    exec python -m torch.distributed.run \
        --nnodes "${NNODES:-1}" --node-rank "${NODE_RANK:-0}" \
        --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${PORT:-29500}" --nproc-per-node "$2" \
        "$ROOT/$1" "${@:3}" --launcher pytorch
}

# slurm PARTITION JOB_NAME TOOL ARGUMENT...: start GPUS processes of the tool (default 8), GPUS_PER_NODE (default 8, or
# GPUS if that is less) on each machine.
slurm() {
    local gpus=${GPUS:-8} per_node
    per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
    if [[ -n ${PORT:-} ]]; then
        export MASTER_PORT=$PORT
    fi
    # SRUN_ARGS is not quoted, since it may hold several options.
    # shellcheck disable=SC2086
    exec srun --partition "$1" --job-name "$2" --ntasks "$gpus" --ntasks-per-node "$per_node" \
        --gres "gpu:$per_node" --cpus-per-task "${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
        python -u "$ROOT/$3" "${@:4}" --launcher slurm
}
