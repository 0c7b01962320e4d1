"""Configs of trainings on shards, streamed and indexed, and what each process of them has seen."""

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
# The same data through the index of the shards.
INDEXED = """
_base_ = './streamed.py'
photos = dict(_base_.photos, ann_file={folder!r} + '/photos/*.tar', stream=None)
texts = dict(_base_.texts, ann_file={folder!r} + '/texts/*.tar', stream=None)
train_dataloader = dict(
    dataset=dict(visual=[photos], language=[texts]),
    batch_sampler=dict(_delete_=True, type='JointBatchSampler', language_batch_size=1),
)
test_dataloader = dict(
    dataset=dict(photos, pipeline=[
        _base_.image_steps, dict(_base_.text_steps[0], open_last=True), *_base_.text_steps[1:]]),
    batch_size=4,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='collate_conversations', padding_side='left'),
)
test_evaluator = dict(type='AnswerAccuracy')
test_cfg = dict(type='EvaluationLoop')
"""


@HOOKS.register_module(force=True)
class SeenSamples(Hook):
    """Hook that writes the names of the samples of each batch, a line for each, into a file of each process."""

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict, outputs: object = None):
        names = [(meta["dataset"], meta["id"]) for meta in data_batch["metas"]]
        with open(Path(runner.work_dir, f"seen_{get_rank()}.jsonl"), "a") as file:
            file.write(json.dumps([runner.iter, names]) + "\n")


def write_shard_configs(folder: Path, flamingo: dict) -> tuple[Path, Path]:
    """Writes shards and configs that train on them for two epochs, as streams and by an index; returns their paths."""
    write_configs(folder, flamingo)
    for name, sizes in SHARDS.items():
        for i, size in enumerate(sizes):
            write_tar(folder / name / f"{i}.tar", records(size, sum(sizes[:i])))
    commands = {name: f"pipe:cat {folder}/{name}/{{0..{len(sizes) - 1}}}.tar" for name, sizes in SHARDS.items()}
    streamed, indexed = folder / "streamed.py", folder / "indexed.py"
    streamed.write_text(CONFIG.format(tokenizer=flamingo["language"]["path"], **commands))
    indexed.write_text(INDEXED.format(folder=str(folder)))
    return streamed, indexed


def seen(work_dir: Path, rank: int) -> list[list]:
    """Number and names of the samples of each batch that a process has trained on."""
    return [json.loads(line) for line in (work_dir / f"seen_{rank}.jsonl").read_text().splitlines()]
