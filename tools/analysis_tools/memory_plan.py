"""Planned GPU memory of a training; no weights, no data and no GPU are needed.

    python tools/analysis_tools/memory_plan.py configs/mmgpt/lora_joint.py
    python tools/analysis_tools/memory_plan.py configs/mmgpt/lora_joint.py --length 2048 --checkpointing

The sizes of the model are read from the config files of its language model and image encoder. Weights and the
optimizer's states are counted; activations are those of the model's own training step, run on tensors that have a shape
and no values. Defaults are the config's: the rows of a batch, the longest sequence (`max_length`), and one image a row
(packed rows: as many as fit), all of it supervised. With cached features, the image encoder takes its weights and no
activations.
"""

import argparse
from collections.abc import Sequence
from math import ceil

from mmengine.config import Config
from mmengine.registry import init_default_scope
from rich.table import Table

from mmgpt.cli import load_config, tool
from mmgpt.cli.config import flamingo_config, steps_of
from mmgpt.cli.options import add_cfg_options
from mmgpt.datasets.transforms.images import prepared_size
from mmgpt.models.memory.planner import Plan, Sizes, plan
from mmgpt.models.memory.sizes import build_without_weights
from mmgpt.visualization.tables import print_tables

GB = 2**30
GPUS = (24, 40, 80)
# Estimate of what the driver, the libraries and memory fragmentation take besides.
RESERVE = 1.5 * GB


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--batch", type=int, metavar="ROWS", help="rows of a batch on each GPU")
    parser.add_argument("--length", type=int, metavar="TOKENS", help="tokens of a row")
    parser.add_argument("--images", type=int, help="images of a row")
    parser.add_argument(
        "--supervised", type=int, metavar="TOKENS", help="supervised tokens of a row (default: all but the first)"
    )
    parser.add_argument("--checkpointing", action=argparse.BooleanOptionalAction, help="default: the config's")
    parser.add_argument("--world-size", type=int, default=1, metavar="GPUS", help="number of GPUs (default: 1)")
    parser.add_argument("--shard", action="store_true", help="the GPUs share weights, gradients, states (FSDP2)")
    add_cfg_options(parser)
    return parser.parse_args(arguments)


def batch_of(cfg: Config, args: argparse.Namespace) -> Sizes:
    """Sizes of the largest batch of a config's training, or those of the command line."""
    loader = cfg.train_dataloader
    samples = loader.batch_size + loader.get("batch_sampler", {}).get("language_batch_size", 0)
    packed = loader.get("collate_fn", {}).get("row_length")
    length = args.length or packed or cfg.max_length
    rows = args.batch or (ceil(samples * cfg.max_length / length) if packed else samples)
    images = (ceil(loader.batch_size / rows) if packed else 1) if args.images is None else args.images
    steps = list(steps_of(loader, "PrepareImages"))
    image_size = next((prepared_size(step) for step in steps if step.get("preprocessing")), None)
    tiles = max((step["tiles"]["max"] for step in steps if step.get("tiles")), default=1)
    features = any(steps_of(loader, "LoadFeatures"))
    if args.supervised is not None and not 0 < args.supervised < length:
        raise ValueError(f"--supervised {args.supervised}: from 1 to {length - 1} of {length} tokens of a row")
    return Sizes(rows, length, images, bool(packed), features, image_size, tiles, args.supervised)


def estimate(cfg: Config, args: argparse.Namespace) -> tuple[Plan, Sizes]:
    """Plan of a config's training, and sizes of the batch that the plan is for."""
    flamingo, sizes = flamingo_config(cfg), batch_of(cfg, args)
    if args.checkpointing is not None:
        flamingo.checkpointing = args.checkpointing
    wrapper = cfg.optim_wrapper
    planned = plan(
        build_without_weights(cfg),
        sizes,
        optimizer=wrapper.optimizer.type,
        precision=flamingo.language.get("precision"),
        accumulation=wrapper.get("accumulative_counts", 1),
        processes=args.world_size,
        sharded=args.shard,
    )
    return planned, sizes


def table(planned: Plan) -> Table:
    """Table of a plan, a line for each kind of memory."""
    result = Table()
    result.add_column("")
    result.add_column("GiB", justify="right")
    lines = {f"weights, {kind}": size for kind, size in planned.weights.items()}
    lines["states of the optimizer"] = planned.optimizer
    lines["activations and gradients"] = planned.step
    lines["weights of other GPUs, or gradients under way"] = planned.gathered
    for name, size in lines.items():
        if size:
            result.add_row(name, f"{size / GB:.2f}")
    result.add_section()
    result.add_row("peak", f"{planned.total / GB:.2f}")
    result.add_row("peak, and 1.5 GiB for driver, libraries and holes", f"{(planned.total + RESERVE) / GB:.2f}")
    return result


def advice(cfg: Config, planned: Plan, sizes: Sizes) -> list[str]:
    """Lines about the GPUs that the plan fits, and the settings that lower it for the smallest, largest gain first."""
    flamingo, lines = flamingo_config(cfg), []
    for size in GPUS:
        lines.append(f"{size} GB: {'fits' if planned.total + RESERVE <= size * GB else 'does not fit'}")
    if lines[0].endswith("not fit"):
        gradients = sum(size for kind, size in planned.weights.items() if kind.startswith("trainable"))
        gains, activations = {}, max(planned.step - gradients, 0)
        if not flamingo.get("checkpointing"):
            gains["activations: model.module.checkpointing=True"] = activations
        if not flamingo.language.get("precision") and "language" in flamingo.get("frozen", ["language"]):
            gains["frozen weights: language.precision=int4"] = sum(
                size for kind, size in planned.weights.items() if kind.startswith("frozen")
            )
        if "8bit" not in cfg.optim_wrapper.optimizer.type:
            gains["states: optim_wrapper.optimizer.type=AdamW8bit"] = planned.optimizer
        gains[f"a smaller batch ({sizes.rows} rows of {sizes.length} tokens), or shorter texts"] = activations / 2
        gains["sharing among 8 GPUs, as configs/mmgpt/lora_joint_fsdp.py does: --world-size 8 --shard"] = (
            sum(planned.weights.values()) / 3
        )
        lines.append("To turn down:")
        lines += [
            f"  {name}" for name in sorted(gains, key=gains.get, reverse=True) if gains[name] > 0.05 * planned.total
        ]
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the plan of a config's training, and what would lower it."""
    args = parse_args(arguments)
    init_default_scope("mmgpt")
    cfg = load_config(args.config, args.cfg_options)
    planned, sizes = estimate(cfg, args)
    gpus = f"{args.world_size} GPUs{', sharded' * args.shard}" if args.world_size > 1 else "one GPU"
    print(
        f"{args.config} on {gpus}, with batches of {sizes.rows} rows of {sizes.length} tokens and {sizes.images} images"
        + f" of {sizes.tiles} tiles" * (sizes.tiles > 1)
        + f", {sizes.supervised} supervised tokens" * (sizes.supervised is not None)
    )
    print_tables({"Peak memory of each GPU": table(planned)})
    print("\n".join(advice(cfg, planned, sizes)))


if __name__ == "__main__":
    tool.run(main)
