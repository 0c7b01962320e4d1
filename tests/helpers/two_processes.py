"""Trainings of a tiny Flamingo in one process or two: ``torchrun two_processes.py RUNS.json``.

The file holds a list of arguments of tools/train.py for each run. Starting the processes once saves the imports.
"""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.logging import MessageHub, MMLogger
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from torch.utils.data import Dataset

from mmgpt.engine.trainable import trainable_state_dicts, unwrap_model
from mmgpt.models.gated_lm import GatedCausalLM
from mmgpt.models.tokenizer import load_tokenizer
from mmgpt.models.transformers_names import set_activation_checkpointing
from mmgpt.models.weights.reader import read_weights
from mmgpt.registry import DATASETS, HOOKS
from tests.helpers.launching import free_port
from tests.helpers.scripts import ENVIRONMENT, ROOT
from tests.helpers.stub_training import StubPart

LR = 1e-3
CONFIG = """
_base_ = ['{configs}/_base_/default_runtime.py', '{configs}/_base_/schedules/tiny.py']
custom_imports = dict(imports=['tests.helpers.two_processes'])
dropout, workers, visual, language, batch_size, language_batch_size = 0.0, 0, 7, 5, 1, 1
lora = dict(r=2, lora_alpha=4, lora_dropout='${{dropout}}', target_modules=['q_proj', 'v_proj', 'to_q', 'to_kv'])
model = {model}
train_dataloader = dict(
    batch_size='${{batch_size}}', num_workers='${{workers}}',
    dataset=dict(type='StubConversations', visual='${{visual}}', language='${{language}}', image_id={image_id}),
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='JointBatchSampler', language_batch_size='${{language_batch_size}}'),
    collate_fn=dict(type='collate_conversations'))
in_shards = False
default_hooks = dict(checkpoint=dict(interval=1, sharded='${{in_shards}}'))
checkpointing, stop = False, 0
custom_hooks = [
    dict(type='StubCheckpointing', on='${{checkpointing}}'),
    dict(type='StubAnswers'),
    dict(type='StubGraphs'),
    dict(type='StubStop', after='${{stop}}')]
lr, warmup_iters, max_epochs = {lr}, 2, 2
# With the default eps, AdamW turns rounding errors of small gradients into whole steps.
optim_wrapper = dict(optimizer=dict(eps=1e-4))
"""
SHARDED = "model_wrapper_cfg = dict(_delete_=True, type='mmgpt.ShardedDataParallel')\n"
# Components trained in full beside LoRA, each with its rate.
BOTH = """
lora = dict(target_modules=['q_proj', 'v_proj'])
model = dict(train=['perceiver', 'gated'])
_keys = dict(perceiver=dict(lr_mult=0.5), gated=dict(lr_mult=0.25, decay_mult=2))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_keys))
"""


@DATASETS.register_module(force=True)
class StubConversations(Dataset):
    """Random samples of different lengths; every third visual sample has no image."""

    metainfo = {}

    def __init__(self, visual: int, language: int, image_id: int) -> None:
        self.visual_size, self.size, self.image_id = visual, visual + language, image_id
        self.visual = [StubPart(range(visual))][:visual]
        self.language = [StubPart(range(language))][:language]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict:
        index %= self.size
        random = torch.Generator().manual_seed(index)
        ids = torch.randint(10, 250, (6 + index % 4,), generator=random)
        labels = ids.clone()
        labels[: 2 + index % 3] = -100
        sample = {"input_ids": ids, "labels": labels, "pixels": None, "meta": {}}
        if index < self.visual_size and index % 3:
            ids[1] = self.image_id
            sample["pixels"] = torch.randn(1, 3, 32, 32, generator=random)
        return {**sample, "source": "visual" if index < self.visual_size else "language"}


@HOOKS.register_module(force=True)
class StubCheckpointing(Hook):
    """Hook that turns on gradient checkpointing of the language model."""

    def __init__(self, on: bool) -> None:
        self.on = on

    def before_train(self, runner: Runner) -> None:
        if not self.on:
            return
        (language,) = [module for module in runner.model.modules() if isinstance(module, GatedCausalLM)]
        set_activation_checkpointing(language, True)


@HOOKS.register_module(force=True)
class StubAnswers(Hook):
    """Hook that writes the answers of each process in the middle of an epoch, one to an image, the other to text alone.

    In between a checkpoint is saved in the same way as the best one is saved after a validation.
    """

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None):
        if runner.iter + 1 != 4:
            return
        model, rank = runner.model.eval(), get_rank()
        image_id = unwrap_model(runner).tokenizer.convert_tokens_to_ids("<image>")
        prompt = [[1, image_id, 11, 12]] if rank == 0 else [[1, 13, 14]]
        batch = {"input_ids": torch.tensor(prompt), "metas": [{}]}
        if rank == 0:
            batch["pixels"] = torch.randn(1, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        answers = [row["prediction"] for _ in range(1 + rank) for row in model.test_step(batch)]
        with trainable_state_dicts(runner):
            runner.save_checkpoint(runner.work_dir, "best.pth", save_optimizer=False, by_epoch=False)
        answers += [row["prediction"] for _ in range(1 + rank) for row in model.test_step(batch)]
        Path(runner.work_dir, f"answers_{rank}.json").write_text(json.dumps(answers))
        model.train()


@HOOKS.register_module(force=True)
class StubGraphs(Hook):
    """Hook that writes the number of graphs that a run has compiled."""

    def before_train(self, runner: Runner) -> None:
        torch._dynamo.utils.counters.clear()

    def after_train(self, runner: Runner) -> None:
        Path(runner.work_dir, "graphs").write_text(str(torch._dynamo.utils.counters["stats"]["unique_graphs"]))


@HOOKS.register_module(force=True)
class StubStop(Hook):
    """Hook that ends the run after a number of batches, as if it were killed."""

    priority = "LOWEST"

    def __init__(self, after: int) -> None:
        self.after = after

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None):
        if runner.iter + 1 == self.after:
            sys.exit("killed")


def write_configs(folder: Path, flamingo: dict) -> dict[str, Path]:
    """Configs with 7 visual and 5 language samples and 2 epochs: LoRA, resampler and gated blocks in full, and both."""
    image_id = load_tokenizer(flamingo["language"]["path"]).convert_tokens_to_ids("<image>")
    models = {"lora": {"type": "LoRAModel", "module": flamingo, "lora": "${lora}"}, "full": flamingo}
    paths = {name: folder / f"{name}.py" for name in models}
    for name, model in models.items():
        text = CONFIG.format(configs=(ROOT / "configs").as_posix(), model=model, image_id=image_id, lr=LR)
        paths[name].write_text(text)
    paths["both"] = folder / "both.py"
    paths["both"].write_text(f"_base_ = './lora.py'\n{BOTH}")
    for name in [*paths]:
        paths[f"sharded {name}"] = folder / f"sharded_{name}.py"
        paths[f"sharded {name}"].write_text(f"_base_ = './{name}.py'\n{SHARDED}")
    return paths


def train(arguments: list[str]) -> None:
    """Run tools/train.py within this process."""
    # MMEngine caches these by config name and second, and would return those of the previous run.
    for kind in (MMLogger, MessageHub, Visualizer):
        kind._instance_dict.clear()
    sys.argv = [str(ROOT / "tools" / "train.py"), *arguments]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        if end.code != "killed":
            raise


def arguments(config: Path, name: str, options: list[str], *more: str) -> list[str]:
    """Arguments of tools/train.py, with a work directory of this name beside the config."""
    return [str(config), "--work-dir", str(config.parent / name.replace(" ", "_")), *more, "--cfg-options", *options]


def train_on_two(folder: Path, runs: list[list[str]]) -> None:
    """Run trainings one after the other in two processes that are started once; they must not hang."""
    (folder / "runs.json").write_text(json.dumps(runs))
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    command = [*start, __file__, str(folder / "runs.json")]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-5000:]


def checkpoint(folder: Path) -> dict:
    """The newest checkpoint of a run."""
    return read_weights(folder / "latest.pth")


def logged(state: dict) -> dict[str, list[float]]:
    """The loss of every batch by source, from the log in a checkpoint."""
    scalars = state["message_hub"]["log_scalars"]
    return {name: value["history"][0].tolist() for name, value in scalars.items() if name.startswith("train/loss")}


if __name__ == "__main__":
    for arguments in json.loads(Path(sys.argv[1]).read_text()):
        train([*arguments, "--launcher", "pytorch"])
        # The next run of the second process may read the last file that the first one writes.
        torch.distributed.barrier()
