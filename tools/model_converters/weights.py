"""Command that converts weights between layouts.

list CONFIG                     parameters of the model, and every trainable tensor with its shape; needs no weights
import CONFIG FILE OUT          OpenFlamingo's checkpoint.pt -> OUT.safetensors, MultiModal-GPT's LoRA -> OUT.pth
export CONFIG CHECKPOINT OUT    a tuned model as a folder: adapter, tokenizer, config; or --format transformers
merge CONFIG CHECKPOINT OUT     the same with LoRA added into the weights
publish CONFIG CHECKPOINT OUT   a model in the layouts of OpenFlamingo and MultiModal-GPT
base CONFIG CHECKPOINT OUT      the trained components of a base: language/, vision/, flamingo.safetensors
from-gguf FILE OUT              a language model in a GGUF file as a Hugging Face folder
inspect NAME                    a language model or image encoder: sizes, tokens, chat template, preprocessing, memory
card OUT OWNER/NAME             the model card of a folder for transformers, with the scores of evaluations
push OUT OWNER/NAME             that folder with its card, to the Hugging Face Hub
"""

import argparse
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from rich.table import Table
from rich.text import Text
from safetensors.torch import save_file

from mmgpt.apis import build_model
from mmgpt.apis.export import changed_layers, export, merge
from mmgpt.apis.precision import unquantized
from mmgpt.cli import load_config, tool
from mmgpt.cli.config import flamingo_config
from mmgpt.cli.model_options import add_trust_option
from mmgpt.cli.options import add_cfg_options
from mmgpt.hf.card import push, write_card
from mmgpt.hf.export import export_transformers
from mmgpt.models import Flamingo, flamingo_of
from mmgpt.models.base_report import describe
from mmgpt.models.memory.sizes import build_without_weights
from mmgpt.models.weights.gguf_file import convert_gguf
from mmgpt.models.weights.loading import check_fit
from mmgpt.models.weights.names import new_tensors, our_names
from mmgpt.models.weights.reader import read_weights, state_and_tuning
from mmgpt.models.weights.trainable import checked_state
from mmgpt.models.weights.writer import (
    save_components,
    save_language,
    save_mmgpt_lora,
    save_openflamingo,
    save_vision,
    write_torch,
)
from mmgpt.utils.precisions import FLOATS
from mmgpt.visualization.tables import print_tables


def list_tensors(cfg: Config, args: argparse.Namespace) -> None:
    """Print name and shape of every trainable tensor, and the number of parameters."""
    total = trainable = 0
    for name, parameter in build_without_weights(cfg).named_parameters():
        total += parameter.numel()
        if parameter.requires_grad:
            trainable += parameter.numel()
            print(name, tuple(parameter.shape))
    print(f"{total:,} parameters, {trainable:,} of them trainable")


def import_file(cfg: Config, args: argparse.Namespace) -> None:
    """Write a published file under our names, checked against the shapes of the config's model."""
    content = read_weights(args.file)
    state, tuning = state_and_tuning(content, args.file)
    if any(".lora_" in name for name in state):
        state = checked_state(build_without_weights(cfg), content, args.file)
        write_torch({"state_dict": state, "meta": {}, "tuning_config": tuning}, args.out)
        return
    flamingo = build_without_weights({**cfg, "model": flamingo_config(cfg)})
    state = our_names(flamingo, state, args.file)
    check_fit(flamingo, state, required=new_tensors(flamingo), allowed=flamingo.state_dict(), source=args.file)
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in state.items()}, args.out)


def export_folder(cfg: Config, args: argparse.Namespace) -> None:
    """Write a tuned model as a folder: with its adapter, or with --format transformers as a model that these open."""
    if args.format == "transformers":
        export_transformers(cfg, _tuned(cfg, args), args.out, args.merged, args.apart)
    else:
        export(cfg, _tuned(cfg, args), args.out)


def merge_folder(cfg: Config, args: argparse.Namespace) -> None:
    """Write a tuned model without adapters."""
    difference = merge(cfg, _tuned(cfg, args), args.out, args.bound)
    print(f"largest difference of a logit, relative to the largest logit: {difference:.2e}")


def publish(cfg: Config, args: argparse.Namespace) -> None:
    """Write the published layouts: checkpoint.pt (OpenFlamingo v1) and final_weights.pt (MultiModal-GPT's LoRA)."""
    model = _tuned(cfg, args)
    flamingo = flamingo_of(model)
    if flamingo is not model:
        save_mmgpt_lora(model, f"{args.out}/final_weights.pt")
    save_openflamingo(flamingo, f"{args.out}/checkpoint.pt")


def write_base(cfg: Config, args: argparse.Namespace) -> None:
    """Write the components that the config trains. Other files in the folder stay, and none is overwritten."""
    if "module" in cfg.model:
        raise ValueError(f"{args.config} has LoRA, which a base cannot hold: merge it, or export it")
    model, out = _tuned(cfg, args), Path(args.out)
    dtype = getattr(torch, args.dtype) if args.dtype else None
    writers = {"vision": lambda path: save_vision(model.vision, cfg.model.vision.model, path, dtype)}
    if isinstance(model, Flamingo):
        layers = changed_layers(model)
        writers = {"flamingo.safetensors": lambda path: save_components(model, path, dtype, layers)}
        if "language" not in model.frozen:
            writers["language"] = lambda path: save_language(model, path, dtype)
    for name in writers:
        if (out / name).exists():
            raise ValueError(f"{out / name} exists already: choose another folder, or move it away")
    for name, write in writers.items():
        write(str(out / name))


def from_gguf(args: argparse.Namespace) -> None:
    """Write the language model of a GGUF file as a Hugging Face folder with dense weights."""
    convert_gguf(args.file, args.out, args.dtype)
    print(f"written: {args.out}")


def inspect(args: argparse.Namespace) -> None:
    """Describe a language model or an image encoder, whose weights are not loaded."""
    tables = {}
    for title, rows in describe(args.name).items():
        tables[title] = Table.grid(padding=(0, 2))
        for name, text in rows.items():
            tables[title].add_row(Text(f"  {name}"), Text(text, overflow="fold"))
    print_tables(tables)


def write_model_card(args: argparse.Namespace) -> None:
    """Write README.md of a folder for transformers, with the scores of evaluations."""
    write_card(args.folder, args.name, args.results)


def push_folder(args: argparse.Namespace) -> None:
    """Upload a folder for transformers, with its model card, to the Hugging Face Hub."""
    print(f"pushed: {push(args.folder, args.name, args.results, args.private)}")


def _tuned(cfg: Config, args: argparse.Namespace) -> torch.nn.Module:
    return build_model(unquantized(cfg), args.file, device="cpu")


FORMATS = ("mmgpt", "transformers")
COMMANDS = {
    "list": list_tensors,
    "import": import_file,
    "export": export_folder,
    "merge": merge_folder,
    "publish": publish,
    "base": write_base,
}


def parse_args() -> argparse.Namespace:
    """The command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, function in COMMANDS.items():
        command = commands.add_parser(name, help=function.__doc__.splitlines()[0], description=function.__doc__)
        command.add_argument("config", help="config that the weights belong to, or an exported folder")
        if name != "list":
            command.add_argument("file", help="the weights: a checkpoint, a published file, or an exported folder")
            command.add_argument("out", help="file or folder to write")
        if name == "export":
            command.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="who opens the folder")
            lora = command.add_mutually_exclusive_group()
            lora.add_argument("--merged", action="store_true", help="in transformers' format, LoRA in the weights")
            lora.add_argument(
                "--apart", action="store_true", help="in transformers' format, LoRA in OUT/adapter: OUT is the base"
            )
        if name == "merge":
            command.add_argument(
                "--bound",
                type=float,
                help="largest difference of a logit, relative to the largest logit (default: 1e-4, or 0.05 with "
                "weights of 16 bits)",
            )
        if name == "base":
            command.add_argument(
                "--dtype", choices=(*FLOATS, "float16"), help="of the written weights (default: that of the model's)"
            )
        add_cfg_options(command)
        add_trust_option(command)
    command = commands.add_parser("from-gguf", help=from_gguf.__doc__, description=from_gguf.__doc__)
    command.add_argument("file", help="GGUF file of a language model")
    command.add_argument("out", help="folder to write")
    dtypes = ("float32", "bfloat16", "float16")
    command.add_argument("--dtype", choices=dtypes, default="float32", help="of the weights (default: float32)")
    command.set_defaults(function=from_gguf)
    command = commands.add_parser("inspect", help=inspect.__doc__, description=inspect.__doc__)
    command.add_argument("name", help="folder, Hub id, or an image encoder's name in open_clip or timm")
    command.set_defaults(function=inspect)
    for name, function in {"card": write_model_card, "push": push_folder}.items():
        command = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
        command.add_argument("folder", help="folder that export --format transformers wrote")
        command.add_argument("name", help="owner/name on the Hub")
        command.add_argument("--results", nargs="+", default=[], metavar="FILE", help="result.json of evaluations")
        if name == "push":
            command.add_argument("--private", action="store_true", help="make a new repository private")
        command.set_defaults(function=function)
    return parser.parse_args()


def main() -> None:
    """Run one command."""
    args = parse_args()
    if "config" not in args:
        return args.function(args)
    if args.command == "export" and (args.merged or args.apart) and args.format == "mmgpt":
        raise ValueError(
            "--merged and --apart go with --format transformers; in mmgpt's own format, merge writes a model without "
            "LoRA, and export keeps it in OUT/adapter"
        )
    if args.command in ("export", "merge") and Path(args.out).exists():
        raise ValueError(f"{args.out} exists already: choose a new folder")
    cfg = load_config(args.config, args.cfg_options, args.trust)
    init_default_scope("mmgpt")
    with torch.no_grad():
        COMMANDS[args.command](cfg, args)
    if args.command != "list":
        print(f"written: {args.out}")


if __name__ == "__main__":
    tool.run(main)
