#!/usr/bin/env bash
# datasets 5.2.0 with torchdata 0.11.0's StatefulDataLoader, torch 2.11.0, Python 3.11.
#
# A streamed dataset of two shards is read by a loader with two workers, and its state is saved after a batch and loaded
# into a new loader, as the documentation of `IterableDataset` shows it.
# Expected: the new loader gives the batches that were left. Of a shuffled one, the documentation says that the content of
#   the shuffle buffer is not in the state: the samples that were in it do not come back.
# Seen: with `shuffle` and two workers, the new loader fails at its first batch, in `_inner_load_state_dict`. Without
#   shuffling, or with one worker, it does not.
#
#   shuffle buffer 0, 1 worker: the batches that were left
#   shuffle buffer 0, 2 workers: the batches that were left
#   shuffle buffer 3, 1 worker: 2 of 8 samples never come
#   shuffle buffer 3, 2 workers: IndexError: list index out of range
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet datasets==5.2.0 torchdata==0.11.0 torch==2.11.0 "setuptools<82"
cat > "$folder/run.py" <<'PY'
import logging

from datasets import IterableDataset
from torchdata.stateful_dataloader import StatefulDataLoader

logging.disable()


def numbers(shards):
    for shard in shards:
        for i in range(4):
            yield {"n": shard * 4 + i}


def loader(buffer, workers):
    dataset = IterableDataset.from_generator(numbers, gen_kwargs={"shards": [0, 1]})
    dataset = dataset.shuffle(seed=0, buffer_size=buffer) if buffer else dataset
    return StatefulDataLoader(dataset, 1, num_workers=workers, collate_fn=lambda batch: batch[0]["n"])


results = {}
for buffer in (0, 3):
    for workers in (1, 2):
        first = loader(buffer, workers)
        batches = iter(first)
        seen, state = [next(batches)], first.state_dict()
        rest, second = list(batches), loader(buffer, workers)
        second.load_state_dict(state)
        try:
            resumed = list(second)
            missing = 8 - len({*seen, *resumed})
            result = "the batches that were left" if resumed == rest else f"{missing} of 8 samples never come"
        except IndexError as error:
            result = f"IndexError: {str(error).splitlines()[-1].partition(': ')[2]}"
        results[buffer, workers] = result
        print(f"shuffle buffer {buffer}, {workers} worker{'s' * (workers > 1)}: {result}", flush=True)
assert results[0, 1] == results[0, 2] == "the batches that were left"
assert results[3, 1] == "2 of 8 samples never come"
assert results[3, 2] == "IndexError: list index out of range"
PY
"$folder/venv/bin/python" "$folder/run.py"
