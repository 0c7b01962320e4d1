"""Speed of a config's model, compared with its bare components and with a peer of the same sizes.

    python tools/analysis_tools/benchmark.py
    python tools/analysis_tools/benchmark.py --quick --only training

The cases of a section are measured in one process and in turns, so that other programs on the machine slow all of them
alike. A ratio is the median of the ratios within each round. Sections: 'training' (steps on random samples as long as
those of the published data), 'decoding' (answers of a chat), 'startup' (from the start of a process to the first
training step and to the first token, and loading; needs the config's training data), 'growth' (a training step as a
function of rows, length and images). The peer is transformers' Idefics of the same sizes, with random weights.
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
from mmgpt.cli.config import flamingo_config  # noqa: E402
from mmgpt.cli.options import add_cfg_options  # noqa: E402
from mmgpt.datasets.instruction import SOURCES  # noqa: E402
from mmgpt.models.memory.compile import check_options  # noqa: E402
from mmgpt.models.memory.planner import Sizes  # noqa: E402
from mmgpt.utils.precisions import AUTO  # noqa: E402
from mmgpt.visualization.tables import print_tables  # noqa: E402

# Batches of a joint step. With grouped rows, these are sorted by length together.
BATCHES = 2
# Length of packed rows if the config does not set it: the longest sample just fits.
ROW_LENGTH = max(lengths.longest for lengths in LENGTHS.values())


class Scale(NamedTuple):
    """Amount of work to measure.

    Attributes:
        rounds: number of measurements of each row.
        samples: samples of each source in a batch.
        shrink: factor of the lengths of samples.
        answer: length of an answer in tokens.
        words: length of a question in words.
        merges: whether LoRA is merged, of each model that answers.
        axes, default_sizes: arguments of `growth.rows`.
    """

    rounds: int
    samples: int
    shrink: float
    answer: int
    words: int
    merges: tuple[bool, ...]
    axes: growth.Axes
    default_sizes: Sizes


FULL = Scale(7, 4, 1.0, 64, 60, (True, False), growth.AXES, growth.DEFAULT_SIZES)
QUICK_AXES = {"rows": (1, 2, 3), "length": (16, 32, 48), "images": (0, 1, 2)}
QUICK = Scale(1, 2, 1 / 8, 4, 8, FULL.merges, QUICK_AXES, Sizes(1, 16, 1))

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
        help="LoRA of the models that answer; each takes three times its memory (default: both)",
    )
    parser.add_argument("--quick", action="store_true", help="few and short samples and one round, as a test")
    parser.add_argument("--rounds", type=int, help=f"measurements of each row (default: {FULL.rounds})")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/benchmark"), help="folder (default: %(default)s)")
    parser.add_argument("--device", help="default: the first GPU, or the CPU")
    add_cfg_options(parser)
    return parser.parse_args(arguments)


def training_section(cfg: Config, device: str, scale: Scale) -> tuple[Mapping[str, Case], Figures]:
    """Cases of training steps, and the function that computes figures from their times."""
    model = build_model(cfg, device=device)
    words = words_of(model, cfg.prepare_images.size)
    drawn = [DrawnSamples(source, BATCHES * scale.samples, words, scale.shrink) for source in SOURCES]
    row_length = int(cfg.get("row_length", ROW_LENGTH) * scale.shrink)
    cases = training.rows(model, cfg, drawn, scale.samples, row_length)
    return cases, partial(_rows_and_ratios, "training", cases, training.ratios)


def decoding_section(cfg: Config, device: str, scale: Scale) -> tuple[Mapping[str, Case], Figures]:
    """Cases of answers, and the function that computes figures from their times."""
    cases = decoding.rows(cfg, device=device, tokens=scale.answer, words=scale.words, merges=scale.merges)
    return cases, partial(_rows_and_ratios, "decoding", cases, decoding.ratios)


def startup_section(cfg: Config, device: str, scale: Scale) -> tuple[Mapping[str, Case], Figures]:
    """Cases of startup, and the function that computes figures from their times."""
    folder = TemporaryDirectory()
    cases = startup.rows(cfg, Path(folder.name), device)

    def figures(times: Times) -> dict:
        folder.cleanup()
        return _rows_and_ratios("startup", cases, startup.ratios, times)

    return cases, figures


def growth_section(cfg: Config, device: str, scale: Scale) -> tuple[Mapping[str, Case], Figures]:
    """Cases of training steps of many sizes, and the function that computes figures from their times."""
    cases = growth.rows(build_model(cfg, device=device), cfg, scale.axes, scale.default_sizes)
    return cases, lambda times: {"growth": growth.laws(times, scale.axes)}


def _rows_and_ratios(section: str, cases: Mapping[str, Case], ratios: Figures, times: Times) -> dict:
    rows = report.row_figures(section, cases, times)
    result = {"rows": rows, "ratios": ratios(times)}
    for name, key in (("operation_ratios", "operations"), ("peak_ratios", "peak_bytes")):
        figures = report.in_place_of_times(rows, key)
        result[name] = ratios(figures) if figures else {}
    # The peaks of components overlap in a step, so that ratios to their sum are meaningless.
    result["peak_ratios"] = {name: value for name, value in result["peak_ratios"].items() if "_over_peer" in name}
    return result


SECTIONS = {
    "training": training_section,
    "decoding": decoding_section,
    "startup": startup_section,
    "growth": growth_section,
}


def measure(section: str, cfg: Config, device: torch.device, scale: Scale, rounds: int) -> dict:
    """The results of a section, some of rows, ratios and growth; its models are freed afterwards."""
    cases, figures = SECTIONS[section](cfg, str(device), scale)
    result = figures(in_turns(cases, rounds, section))
    del cases, figures
    if cfg.get("compile"):
        torch.compiler.set_stance("default")
    gc.collect()
    torch.cuda.empty_cache()
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure section by section, write the report after each, and print it at the end."""
    args = parse_args(arguments)
    scale = (QUICK if args.quick else FULL)._replace(merges=tuple(lora == "merged" for lora in args.lora))
    rounds = scale.rounds if args.rounds is None else args.rounds
    if rounds < 1:
        raise ValueError(f"--rounds {rounds} must be at least 1")
    init_default_scope("mmgpt")
    MMLogger.get_current_instance().setLevel("WARNING")
    cfg, device = load_config(args.config, args.cfg_options), find_device(args.device)
    check_options(cfg.get("compile"))
    if "startup" in args.only:
        startup.check(cfg)
    language = flamingo_config(cfg).language
    dtype = language.get("dtype") or "float32"
    if dtype == AUTO:
        raise ValueError(f"{args.config}: language.dtype={AUTO!r}: set the one whose limit is to be measured")
    device_limits = limits(device, getattr(torch, dtype))
    command = shlex.join(["tools/analysis_tools/benchmark.py", *(sys.argv[1:] if arguments is None else arguments)])
    results = {
        **report.setting(device),
        "config": args.config,
        "rounds": rounds,
        "command": command,
        "limits": device_limits._asdict(),
        "rows": [],
        "ratios": {},
        "operation_ratios": {},
        "peak_ratios": {},
        "growth": {},
    }
    for section in args.only:
        for key, value in measure(section, cfg, device, scale, rounds).items():
            if key == "rows":
                results["rows"] += [row | share(row, device_limits) for row in value]
            else:
                results[key] |= value
        paths = report.write(results, args.out)
    print_tables(report.tables(results))
    print("\n".join(map(str, paths)))


if __name__ == "__main__":
    tool.run(main)
