"""How fast a config's model is, beside the bare parts that it is made of and a peer of the same sizes.

    python tools/analysis_tools/benchmark.py
    python tools/analysis_tools/benchmark.py --quick --only training

Everything of a section is measured in one process and in turns, so that what else runs on the machine slows all of it.
A ratio is the median of the ratios within each round. Sections: 'training' (steps on random samples as long as the
published data's), 'decoding' (answers of a chat), 'startup' (from the start of a process to the first step of training
and to the first token, loading; the config's training data has to be there), 'growth' (a step of training against rows,
length and images). The peer is transformers' Idefics at the same sizes, with random weights.
"""

import argparse
import gc
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

# The folder benchmarks/ is not part of the package.
sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import decoding, growth, report, startup, training  # noqa: E402
from benchmarks.limits import limits, share  # noqa: E402
from benchmarks.rounds import Case, Times, in_turns  # noqa: E402
from benchmarks.samples import LENGTHS, DrawnSamples, words_of  # noqa: E402
from mmgpt.apis import build_model  # noqa: E402
from mmgpt.apis.build import find_device  # noqa: E402
from mmgpt.cli import load_config, tool  # noqa: E402
from mmgpt.cli.options import add_cfg_options  # noqa: E402
from mmgpt.datasets.instruction import SOURCES  # noqa: E402
from mmgpt.models.memory.compile import check_options  # noqa: E402
from mmgpt.models.memory.planner import Sizes  # noqa: E402
from mmgpt.visualization.tables import print_tables  # noqa: E402

# Of a joint step: neighbouring batches that are sorted by length together, where they are.
BATCHES = 2
# Of packed rows, where the config does not say: the longest sample just fits.
ROW_LENGTH = max(lengths.longest for lengths in LENGTHS.values())


class Scale(NamedTuple):
    """How much is measured.

    Attributes:
        rounds: turns of each row.
        samples: of each source in a batch.
        shrink: what the lengths of samples are multiplied by.
        answer: tokens of an answer.
        words: of a question.
        merges: whether LoRA is merged, of the models that answer.
        axes, usual: of `growth.rows`.
    """

    rounds: int
    samples: int
    shrink: float
    answer: int
    words: int
    merges: tuple[bool, ...]
    axes: growth.Axes
    usual: Sizes


FULL = Scale(7, 4, 1.0, 64, 60, (True, False), growth.AXES, growth.USUAL)
AXES = {"rows": (1, 2, 3), "length": (16, 32, 48), "images": (0, 1, 2)}
QUICK = Scale(1, 2, 1 / 8, 4, 8, FULL.merges, AXES, Sizes(1, 16, 1))

Figures = Callable[[Times], dict]


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", default="configs/mmgpt/benchmark.py", help="default: %(default)s")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS), help="default: all")
    parser.add_argument(
        "--lora",
        nargs="+",
        choices=["merged", "unmerged"],
        default=["merged", "unmerged"],
        help="how models answer, each three times in memory (default: both)",
    )
    parser.add_argument("--quick", action="store_true", help="few, short samples and one round, to see that it runs")
    parser.add_argument("--rounds", type=int, help=f"turns of each row (default: {FULL.rounds})")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/benchmark"), help="folder (default: %(default)s)")
    parser.add_argument("--device", help="default: the first GPU, or the CPU")
    add_cfg_options(parser)
    return parser.parse_args(arguments)


def of_training(cfg: Config, device: str, scale: Scale) -> tuple[Mapping[str, Case], Figures]:
    """What is measured of training, and what becomes of it."""
    model = build_model(cfg, device=device)
    words = words_of(model, cfg.image_size)
    drawn = [DrawnSamples(source, BATCHES * scale.samples, words, scale.shrink) for source in SOURCES]
    row_length = int(cfg.get("row_length", ROW_LENGTH) * scale.shrink)
    cases = training.rows(model, cfg, drawn, scale.samples, row_length)
    return cases, partial(_rows_and_ratios, "training", cases, training.ratios)


def of_decoding(cfg: Config, device: str, scale: Scale) -> tuple[Mapping[str, Case], Figures]:
    """Likewise of answers."""
    cases = decoding.rows(cfg, device=device, tokens=scale.answer, words=scale.words, merges=scale.merges)
    return cases, partial(_rows_and_ratios, "decoding", cases, decoding.ratios)


def of_startup(cfg: Config, device: str, scale: Scale) -> tuple[Mapping[str, Case], Figures]:
    """Likewise of beginnings."""
    folder = TemporaryDirectory()
    cases = startup.rows(cfg, Path(folder.name), device)

    def figures(times: Times) -> dict:
        folder.cleanup()
        return _rows_and_ratios("startup", cases, startup.ratios, times)

    return cases, figures


def of_growth(cfg: Config, device: str, scale: Scale) -> tuple[Mapping[str, Case], Figures]:
    """Likewise of steps of many sizes."""
    cases = growth.rows(build_model(cfg, device=device), cfg, scale.axes, scale.usual)
    return cases, lambda times: {"growth": growth.laws(times, scale.axes)}


def _rows_and_ratios(section: str, cases: Mapping[str, Case], ratios: Figures, times: Times) -> dict:
    rows = report.row_figures(section, cases, times)
    found = {"rows": rows, "ratios": ratios(times)}
    for name, key in (("operation_ratios", "operations"), ("peak_ratios", "peak_bytes")):
        figures = report.in_place_of_times(rows, key)
        found[name] = ratios(figures) if figures else {}
    # The peaks of parts are not one after the other in a step: their sum says nothing.
    found["peak_ratios"] = {name: value for name, value in found["peak_ratios"].items() if "_over_peer" in name}
    return found


SECTIONS = {"training": of_training, "decoding": of_decoding, "startup": of_startup, "growth": of_growth}


def measure(section: str, cfg: Config, device: torch.device, scale: Scale, rounds: int) -> dict:
    """Rows, ratios and growth of a section, as far as it has them; its models are freed afterwards."""
    cases, figures = SECTIONS[section](cfg, str(device), scale)
    found = figures(in_turns(cases, rounds, section))
    del cases, figures
    if cfg.get("compile"):
        torch.compiler.set_stance("default")
    gc.collect()
    torch.cuda.empty_cache()
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure section by section; write after each, then print."""
    args = parse_args(arguments)
    scale = (QUICK if args.quick else FULL)._replace(merges=tuple(each == "merged" for each in args.lora))
    rounds = scale.rounds if args.rounds is None else args.rounds
    if rounds < 1:
        raise ValueError(f"--rounds {rounds}: at least one is measured")
    init_default_scope("mmgpt")
    MMLogger.get_current_instance().setLevel("WARNING")
    cfg, device = load_config(args.config, args.cfg_options), find_device(args.device)
    check_options(cfg.get("compile"))
    if "startup" in args.only:
        startup.check(cfg)
    language = cfg.model.get("module", cfg.model).language
    most = limits(device, getattr(torch, language.get("dtype") or "float32"))
    command = shlex.join(["tools/analysis_tools/benchmark.py", *(sys.argv[1:] if arguments is None else arguments)])
    made = {**report.setting(device), "config": args.config, "rounds": rounds, "command": command}
    made |= {
        "limits": most._asdict(),
        "rows": [],
        "ratios": {},
        "operation_ratios": {},
        "peak_ratios": {},
        "growth": {},
    }
    for section in args.only:
        for key, value in measure(section, cfg, device, scale, rounds).items():
            made[key] = made[key] + [row | share(row, most) for row in value] if key == "rows" else made[key] | value
        paths = report.write(made, args.out)
    print_tables(report.tables(made))
    print("\n".join(map(str, paths)))


if __name__ == "__main__":
    tool.run(main)
