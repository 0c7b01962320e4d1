"""Config of a training on streamed shards, and what each process of it has seen."""

import json
from pathlib import Path

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmgpt.registry import HOOKS
from tests.helpers.shards import records, write_tar
from tests.helpers.two_processes import write_configs

# Shards of photos, of which one process may read more than another, and of texts.
SHARDS = {"photos": (9, 2, 5, 1), "texts": (4, 3)}
CONFIG = """
_base_ = './lora.py'
custom_imports = dict(imports=['tests.helpers.two_processes', 'tests.helpers.streamed_training'])
workers, tokenizer = 2, {tokenizer!r}
text_steps = [
    dict(type='FormatPrompt', template='short'),
    dict(type='TokenizeSegments', tokenizer=tokenizer, max_length=100),
    dict(type='PackInputs'),
]
image_steps = [dict(type='LoadImages'), dict(type='PrepareImages', size=32, mean=[0.5] * 3, std=[0.5] * 3)]
photos = dict(
    type='InstructionDataset', name='photos', parser='conversation', ann_file={photos!r},
    stream=dict(shuffle_buffer=4), pipeline=[image_steps, text_steps])
texts = dict(
    type='InstructionDataset', name='texts', parser='conversation', source='language', ann_file={texts!r},
    stream=dict(shuffle_buffer=4), pipeline=[image_steps, text_steps])
train_dataloader = dict(
    batch_size=2,
    num_workers='${{workers}}',
    dataset=dict(_delete_=True, type='JointDataset', visual=[photos], language=[texts]),
    batch_sampler=dict(_delete_=True, type='StreamBatchSampler', language_batch_size=1, streams=2),
)
custom_hooks = [dict(type='StubStop', after='${{stop}}'), dict(type='SeenSamples')]
default_hooks = dict(checkpoint=dict(interval=1, by_epoch=False))
"""


@HOOKS.register_module(force=True)
class SeenSamples(Hook):
    """Hook that writes the names of the samples of each batch, a line for each, into a file of each process."""

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict, outputs: object = None):
        names = [(meta["dataset"], meta["id"]) for meta in data_batch["metas"]]
        with open(Path(runner.work_dir, f"seen_{get_rank()}.jsonl"), "a") as file:
            file.write(json.dumps([runner.iter, names]) + "\n")


def write_streamed_config(folder: Path, flamingo: dict) -> Path:
    """Writes shards and a config that trains on them as streams for two epochs, and returns its path."""
    write_configs(folder, flamingo)
    for name, sizes in SHARDS.items():
        for i, size in enumerate(sizes):
            write_tar(folder / name / f"{i}.tar", records(size, sum(sizes[:i])))
    commands = {name: f"pipe:cat {folder}/{name}/{{0..{len(sizes) - 1}}}.tar" for name, sizes in SHARDS.items()}
    path = folder / "streamed.py"
    path.write_text(CONFIG.format(tokenizer=flamingo["language"]["path"], **commands))
    return path


def seen(work_dir: Path, rank: int) -> list[list]:
    """Number and names of the samples of each batch that a process has trained on."""
    return [json.loads(line) for line in (work_dir / f"seen_{rank}.jsonl").read_text().splitlines()]
