#!/usr/bin/env bash
# Speed of this tree over that of another commit, measured in turns:
#     bash tools/dev/compare_builds.sh REV [--rows ...] [--rounds N] [--precision NAME] [--data FOLDER]
# The commit is checked out beside the repository for as long as it takes.
set -euo pipefail

if [[ $# -lt 1 || $1 == -* ]]; then
    echo "usage: bash tools/dev/compare_builds.sh REV [options of tools/dev/compare_builds.py]" >&2
    exit 2
fi
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
other="$(mktemp -d)"
trap 'rmdir "$other"' EXIT
git -C "$root" worktree add --quiet --detach "$other" "$1"
trap 'git -C "$root" worktree remove --force "$other"' EXIT
python "$root/tools/dev/compare_builds.py" "$other" "${@:2}"
