"""Command that generates the tiny world: small images with captions, questions, dialogues and text tasks.

    python projects/tiny_world/generate.py data/tiny

The annotation files have the layouts of published datasets. The same arguments always give the same bytes. The folder
appears under its name only when it is complete.
"""

import argparse
import json
import time
import zlib
from pathlib import Path

from generator.build import Sizes, build
from generator.vocabulary import CANVAS

from mmgpt.utils.atomic import part_path, remove, remove_abandoned

RECEIPT = "made_by.json"


def parse_args(arguments=None):
    """The command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--train-scenes", type=int, default=6000, help="scenes of shapes; words and digits in proportion"
    )
    parser.add_argument("--heldout-scenes", type=int, default=480, help="240 questions a family come from 480 scenes")
    parser.add_argument("--pretrain-scenes", type=int, default=0, help="scenes of all kinds with plain statements")
    parser.add_argument(
        "--canvas", type=int, nargs=2, default=CANVAS, metavar=("WIDTH", "HEIGHT"), help="pixels of an image"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that draw images")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace data that other arguments or an older generator made"
    )
    return parser.parse_args(arguments)


def receipt(args):
    """Receipt of the data: all that its files depend on, written beside them, so that a later call can compare."""
    sources = sorted((Path(__file__).parent / "generator").glob("*.py"))
    return dict(
        generator=zlib.crc32("".join(path.read_text(encoding="utf-8") for path in sources).encode()),
        seed=args.seed,
        train_scenes=args.train_scenes,
        heldout_scenes=args.heldout_scenes,
        pretrain_scenes=args.pretrain_scenes,
        **({} if tuple(args.canvas) == CANVAS else {"canvas": list(args.canvas)}),
    )


def is_complete(out, expected, overwrite):
    """Whether the folder `out` already holds the data of the receipt `expected`.

    Raises:
        ValueError: the folder holds other data, and may not be replaced.
    """
    if not out.exists() or out.is_dir() and not any(out.iterdir()):
        return False
    if not (out / RECEIPT).is_file():
        raise ValueError(f"{out} exists and was not made by this tool (it has no {RECEIPT}); choose another folder")
    present = json.loads((out / RECEIPT).read_text(encoding="utf-8"))
    if present != expected and not overwrite:
        raise ValueError(f"{out} was made with {present}, not with {expected}; --overwrite replaces it")
    return present == expected


def make(out, args):
    """Builds under a temporary name beside `out` and renames, so that an interrupted run leaves no incomplete data."""
    out.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(out.parent, out.name)
    partial, replaced = part_path(out), part_path(out)
    partial.mkdir()
    try:
        sizes = Sizes(args.train_scenes, args.heldout_scenes, args.pretrain_scenes)
        build(partial, args.seed, sizes, args.workers, tuple(args.canvas))
        (partial / RECEIPT).write_text(json.dumps(receipt(args), indent=1) + "\n", encoding="utf-8")
        if out.exists():
            out.rename(replaced)
        partial.rename(out)
    finally:
        remove(partial)
        remove(replaced)


def main(arguments=None):
    """Makes the data, or prints that it is there already."""
    args = parse_args(arguments)
    if min(args.canvas) < min(CANVAS):
        raise SystemExit(f"error: --canvas {args.canvas}: the sides of an image are at least {min(CANVAS)} pixels")
    try:
        if is_complete(args.out, receipt(args), args.overwrite):
            print(f"{args.out} is complete: nothing to do")
            return
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    start = time.perf_counter()
    make(args.out, args)
    print(f"{args.out} made in {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
