"""How much GPU memory a training takes, before it is started: no weights, no data and no GPU are needed.

    python tools/analysis_tools/memory_plan.py configs/mmgpt/lora_joint.py
    python tools/analysis_tools/memory_plan.py configs/mmgpt/lora_joint.py --length 2048 --checkpointing

Weights and the optimizer's states are counted; activations are those of the model's own training step, made with
tensors that have a shape and no values. Defaults are the config's: the rows of a batch, the length at which texts are
cut, and one image a row (packed rows: as many as fit).
"""

import argparse
from collections.abc import Sequence
from math import ceil

from mmengine.config import Config
from mmengine.registry import init_default_scope
from rich.table import Table

from mmgpt.cli import load_config, tool
from mmgpt.cli.config import flamingo_config
from mmgpt.cli.options import add_cfg_options
from mmgpt.models.memory.planner import Plan, Sizes, plan
from mmgpt.models.memory.sizes import build_without_weights
from mmgpt.visualization.tables import print_tables

GB = 2**30
GPUS = (24, 40, 80)
# What the driver, the libraries and holes between tensors take besides.
RESERVE = 1.5 * GB


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--batch", type=int, metavar="ROWS", help="rows of a batch on each GPU")
    parser.add_argument("--length", type=int, metavar="TOKENS", help="tokens of a row")
    parser.add_argument("--images", type=int, help="images of a row")
    parser.add_argument("--checkpointing", action=argparse.BooleanOptionalAction, help="default: the config's")
    parser.add_argument("--world-size", type=int, default=1, metavar="GPUS", help="number of GPUs (default: 1)")
    parser.add_argument("--shard", action="store_true", help="the GPUs share weights, gradients, states (FSDP2)")
    add_cfg_options(parser)
    return parser.parse_args(arguments)


def batch_of(cfg: Config, args: argparse.Namespace) -> Sizes:
    """The largest batch that the config makes, or what the command line says instead."""
    loader = cfg.train_dataloader
    samples = loader.batch_size + loader.get("batch_sampler", {}).get("language_batch_size", 0)
    packed = loader.get("collate_fn", {}).get("row_length")
    length = args.length or packed or cfg.max_length
    rows = args.batch or (ceil(samples * cfg.max_length / length) if packed else samples)
    images = (ceil(loader.batch_size / rows) if packed else 1) if args.images is None else args.images
    return Sizes(rows, length, images, bool(packed))


def estimate(cfg: Config, args: argparse.Namespace) -> tuple[Plan, Sizes]:
    """The plan of a config, and the batch that it is for."""
    flamingo, sizes = flamingo_config(cfg), batch_of(cfg, args)
    if args.checkpointing is not None:
        flamingo.checkpointing = args.checkpointing
    wrapper = cfg.optim_wrapper
    made = plan(
        build_without_weights(cfg),
        sizes,
        optimizer=wrapper.optimizer.type,
        precision=flamingo.language.get("precision"),
        accumulation=wrapper.get("accumulative_counts", 1),
        processes=args.world_size,
        sharded=args.shard,
    )
    return made, sizes


def table(made: Plan) -> Table:
    """The plan, line by line."""
    result = Table()
    result.add_column("")
    result.add_column("GiB", justify="right")
    lines = {f"weights, {kind}": size for kind, size in made.weights.items()}
    lines["states of the optimizer"] = made.optimizer
    lines["activations and gradients"] = made.step
    if made.update > made.step:
        lines["gradients and the optimizer's step, instead of activations"] = made.update
    lines["weights of other GPUs, or gradients under way"] = made.gathered
    for name, size in lines.items():
        if size:
            result.add_row(name, f"{size / GB:.2f}")
    result.add_section()
    result.add_row("peak", f"{made.total / GB:.2f}")
    result.add_row("peak, and 1.5 GiB for driver, libraries and holes", f"{(made.total + RESERVE) / GB:.2f}")
    return result


def advice(cfg: Config, made: Plan, sizes: Sizes) -> list[str]:
    """Which GPUs it fits, and what to turn down for the smallest, the largest gain first."""
    flamingo, lines = flamingo_config(cfg), []
    for size in GPUS:
        lines.append(f"{size} GB: {'fits' if made.total + RESERVE <= size * GB else 'does not fit'}")
    if lines[0].endswith("not fit"):
        gains, activations = {}, max(made.step - made.update, 0)
        if not flamingo.get("checkpointing"):
            gains["activations: model.module.checkpointing=True"] = activations
        if not flamingo.language.get("precision") and "language" in flamingo.get("frozen", ["language"]):
            gains["frozen weights: language.precision=int4"] = _frozen(made)
        if "8bit" not in cfg.optim_wrapper.optimizer.type:
            gains["states: optim_wrapper.optimizer.type=AdamW8bit"] = made.optimizer
        gains[f"a smaller batch ({sizes.rows} rows of {sizes.length} tokens), or shorter texts"] = activations / 2
        gains["sharing among 8 GPUs, as configs/mmgpt/lora_joint_fsdp.py does: --world-size 8 --shard"] = (
            sum(made.weights.values()) / 3
        )
        lines.append("To turn down:")
        lines += [f"  {name}" for name in sorted(gains, key=gains.get, reverse=True) if gains[name] > 0.05 * made.total]
    return lines


def _frozen(made: Plan) -> float:
    return sum(size for kind, size in made.weights.items() if kind.startswith("frozen"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Estimate, print."""
    args = parse_args(arguments)
    init_default_scope("mmgpt")
    cfg = load_config(args.config, args.cfg_options)
    made, sizes = estimate(cfg, args)
    gpus = f"{args.world_size} GPUs{', sharded' * args.shard}" if args.world_size > 1 else "one GPU"
    print(
        f"{args.config} on {gpus}, with batches of {sizes.rows} rows of {sizes.length} tokens and {sizes.images} images"
    )
    print_tables({"Peak memory of each GPU": table(made)})
    print("\n".join(advice(cfg, made, sizes)))


if __name__ == "__main__":
    tool.run(main)
