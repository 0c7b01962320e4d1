"""Turns data of your own into the JSON lines that docs/data.md describes.

    python tools/dataset_converters/convert.py LAYOUT SOURCE --out data/my_photos/train.jsonl

    csv          a table: columns image, question, answer
    folder       pictures with captions beside them, or with metadata.csv or metadata.jsonl
    coco         COCO's own file of captions
    parquet      shards of Hugging Face, with the pictures in them
    webdataset   .tar shards of pictures and captions
    parser       any file that one of the parsers reads

`convert.py LAYOUT --help` says more of each. Every sample is checked; the first that is wrong is named, and nothing is
written. At the end stands a config to start from.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from own.coco import read_coco
from own.folder import read_folder
from own.parquet import read_parquet
from own.parsed import read_parsed
from own.rows import ROLES
from own.snippet import config, name_of
from own.tables import read_table
from own.webdataset import read_webdataset
from own.writing import checked, held_out, write

from mmgpt.cli import tool
from mmgpt.engine.hooks.progress_bar import progress_bar
from mmgpt.utils.atomic import atomic_write


class Layout(NamedTuple):
    """A function that reads a layout, and the values of the command line that it takes, in this order."""

    read: Callable[..., Iterator[tuple[str, dict]]]
    takes: tuple[str, ...]


LAYOUTS = {
    "csv": Layout(read_table, ("source", "columns")),
    "folder": Layout(read_folder, ("source", "columns")),
    "coco": Layout(read_coco, ("source",)),
    "parquet": Layout(read_parquet, ("source", "columns", "images")),
    "webdataset": Layout(read_webdataset, ("source", "columns", "images")),
    "parser": Layout(read_parsed, ("source", "parser", "options", "questions")),
}


def pair(text: str) -> tuple[str, str]:
    """'KEY=VALUE' as a pair."""
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def column(text: str) -> tuple[str, str]:
    """'WHAT=NAME' as a pair, whose first is one of ROLES."""
    role, name = pair(text)
    if role not in ROLES:
        raise argparse.ArgumentTypeError(f"no column is for {role!r}: choose among {', '.join(ROLES)}")
    return role, name


def share(text: str) -> float:
    """A number above 0 and below 1."""
    if not 0 < float(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return float(text)


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    layouts = parser.add_subparsers(dest="layout", required=True, metavar="LAYOUT")
    for name, layout in LAYOUTS.items():
        add_arguments(layouts.add_parser(name, description=layout.read.__doc__), layout.takes)
    args = parser.parse_args(arguments)
    args.columns, args.options = (dict(vars(args).get(name, ())) for name in ("columns", "options"))
    return args


def add_arguments(parser: argparse.ArgumentParser, takes: Sequence[str]) -> None:
    """The command line of a layout whose reader takes these values."""
    add = parser.add_argument
    if "parser" in takes:
        add("parser", metavar="NAME", help="name of the parser, see docs/data.md")
        add("--options", nargs="+", type=pair, metavar="KEY=VALUE", default=(), help="options of the parser")
        add("--questions", type=Path, metavar="FILE", help="file with the questions, where the format has two")
    if "columns" in takes:
        words = f"which column is what ({', '.join(ROLES)}), e.g. answer=caption image=left,right"
        add("--columns", nargs="+", type=column, metavar="WHAT=NAME", default=(), help=words)
    new = "new folder for the pictures; default: images, beside OUT"
    old = "folder that the pictures' paths are relative to; default: that of SOURCE"
    add("--images", type=Path, metavar="DIR", help=new if "images" in takes else old)
    add("source", type=Path, metavar="SOURCE", help="file or folder to read")
    add("--out", type=Path, required=True, help="file to write, e.g. data/my_photos/train.jsonl")
    add("--question", default="", help="asked where there is none; without it, AskQuestion asks during training")
    add("--val", type=share, metavar="SHARE", help="share that is held out in a second file; no image is in both")
    add("--seed", type=int, default=0, help="of what is held out")
    add("--force", action="store_true", help="replace OUT")


def out_files(args: argparse.Namespace) -> list[Path]:
    """The annotation files to write: OUT, and that of what is held out.

    Raises:
        ValueError: one is there already, and may not be replaced.
    """
    out = args.out
    val = out.with_name(f"val{out.suffix}" if out.stem == "train" else f"{out.stem}_val{out.suffix}")
    files = [out, val] if args.val else [out]
    for path in files:
        if path.exists() and not args.force:
            raise ValueError(f"{path} exists already: --force replaces it")
    return files


@contextmanager
def image_folder(args: argparse.Namespace) -> Iterator[tuple[Path, Path]]:
    """The folder of the images, twice; for a layout that holds its pictures itself, the second is one to write to.

    What is written becomes the first when the block ends well.

    Raises:
        ValueError: that folder is there already. It is never replaced: other pictures may be in it.
    """
    if "images" not in LAYOUTS[args.layout].takes:
        folder = args.images or (args.source if args.source.is_dir() else args.source.parent)
        yield folder, folder
        return
    final = args.images or args.out.parent / "images"
    if final.exists():
        raise ValueError(f"{final} exists already: remove it, or name a new folder with --images")
    with atomic_write(final) as part:
        part.mkdir()
        yield final, part


def read(args: argparse.Namespace, images: Path) -> list[dict]:
    """All samples of the source, checked; pictures that it holds itself are written to `images`.

    Raises:
        FileNotFoundError: there is no source.
        ValueError: a sample is wrong, or there is none.
    """
    if not args.source.exists():
        raise FileNotFoundError(f"there is no {str(args.source)!r}")
    layout = LAYOUTS[args.layout]
    given = {**vars(args), "images": images}
    found = layout.read(*(given[name] for name in layout.takes))
    with progress_bar("samples", total=None) as bar:
        samples = []
        for sample in checked(found, args.question):
            samples.append(sample)
            bar.update()
    if not samples:
        raise ValueError(f"{args.source}: nothing to convert in it")
    return samples


def report(path: Path, samples: Sequence[dict]) -> str:
    """What a file holds."""
    turns = sum(len(sample["turns"]) for sample in samples)
    images = len({image for sample in samples for image in sample["images"]})
    return f"{path}: {len(samples)} samples, {turns} turns, {images} images"


def main(arguments: Sequence[str] | None = None) -> None:
    """Read, check, write, and say how to go on."""
    args = parse_args(arguments)
    files = out_files(args)
    with image_folder(args) as (images, new_images):
        samples = read(args, new_images)
        parts = held_out(samples, args.val, args.seed) if args.val else (samples,)
        written = dict(zip(files, parts, strict=True))
        write(written)
    for path, part in written.items():
        print(report(path, part))
    name = f"configs/mmgpt/{name_of(args.out)}.py"
    print(f"\nA config for it (save it as {name}):\n")
    print(config(args.out, files[1] if args.val else None, images, parts[0]))
    print(f"Next: python tools/analysis_tools/check_dataset.py {name}")


if __name__ == "__main__":
    tool.run(main)
