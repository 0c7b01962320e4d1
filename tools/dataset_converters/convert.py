"""Command that converts your data into the JSON lines, or shards with the images inside, that docs/data.md describes.

    python tools/dataset_converters/convert.py LAYOUT SOURCE --out data/my_photos/train.jsonl

    csv          a table: columns image, question, answer
    folder       images with captions beside them, or with metadata.csv or metadata.jsonl
    coco         COCO's caption file
    parquet      Hugging Face's shards with images in them
    webdataset   .tar shards of images and captions
    parser       any file in the format of one of the parsers

--out data/my_photos/train.parquet, or train.tar, writes shards: train-00000.parquet and so on.

--val SHARE holds out a part of the samples; --test FILE converts a file of held-out samples beside the other.

`convert.py LAYOUT --help` describes each. Every sample is checked before anything is written, and an error names the
first wrong one. The output ends with a config to start from.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from layouts.coco import read_coco
from layouts.folder import read_folder
from layouts.parquet import read_parquet
from layouts.parsed import read_parsed
from layouts.rows import ROLES
from layouts.shards import SHARD_SUFFIXES, shard_pattern, write_shards
from layouts.snippet import config, name_of
from layouts.tables import read_table
from layouts.webdataset import read_webdataset
from layouts.writing import check_samples, split_samples, write

from mmgpt.cli import tool
from mmgpt.datasets.image_folders import image_path
from mmgpt.utils.atomic import atomic_write
from mmgpt.utils.data_uri import is_data_uri
from mmgpt.utils.progress_bar import progress_bar


class Layout(NamedTuple):
    """The reader of a layout, and the names of its arguments in the command line."""

    read: Callable[..., Iterator[tuple[str, dict]]]
    arguments: tuple[str, ...]


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
    """'ROLE=NAME' as a pair; the role is one of ROLES."""
    role, name = pair(text)
    if role not in ROLES:
        raise argparse.ArgumentTypeError(f"unknown role {role!r} of a column; choose one of {', '.join(ROLES)}")
    return role, name


def share(text: str) -> float:
    """A number above 0 and below 1."""
    if not 0 < float(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return float(text)


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    layouts = parser.add_subparsers(dest="layout", required=True, metavar="LAYOUT")
    for name, layout in LAYOUTS.items():
        add_arguments(layouts.add_parser(name, description=layout.read.__doc__), layout.arguments)
    args = parser.parse_args(arguments)
    args.columns, args.options = (dict(vars(args).get(name, ())) for name in ("columns", "options"))
    return args


def add_arguments(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    """Adds the options of a layout whose reader has arguments of these names."""
    add = parser.add_argument
    if "parser" in names:
        add("parser", metavar="NAME", help="name of the parser, see docs/data.md")
        add("--options", nargs="+", type=pair, metavar="KEY=VALUE", default=(), help="options of the parser")
        add("--questions", type=Path, metavar="FILE", help="file with the questions, where the format has two")
    if "columns" in names:
        roles = f"columns of a role ({', '.join(ROLES)}), e.g. answer=caption image=left,right"
        add("--columns", nargs="+", type=column, metavar="ROLE=NAME", default=(), help=roles)
    image_output = "new folder for the images; default: images, beside OUT"
    image_folder = "folder that the images' paths are relative to; default: that of SOURCE"
    add("--images", type=Path, metavar="DIR", help=image_output if "images" in names else image_folder)
    add("source", type=Path, metavar="SOURCE", help="file or folder to read")
    add("--out", type=Path, required=True, help="file to write, e.g. data/my_photos/train.jsonl")
    add("--shard-size", type=int, metavar="MB", help="megabytes at which a shard ends; default: 256")
    add("--question", default="", help="question of samples without one; default: AskQuestion asks during training")
    held_out = parser.add_mutually_exclusive_group()
    held_out.add_argument(
        "--val",
        type=share,
        metavar="SHARE",
        help="share of samples held out in a second file; no image is in both",
    )
    test = "file or folder of held-out samples in the same layout, converted into a second file"
    held_out.add_argument("--test", type=Path, metavar="FILE", help=test)
    add("--seed", type=int, default=0, help="seed of the draw of held-out samples")
    add("--force", action="store_true", help="replace OUT")


def out_files(args: argparse.Namespace) -> list[Path]:
    """The annotation files to write: OUT, and with --val or --test that of the held-out samples.

    Raises:
        ValueError: a file exists already, and may not be replaced.
    """
    out = args.out
    split = "val" if args.val else "test" if args.test else None
    held_out = f"{split}{out.suffix}" if out.stem == "train" else f"{out.stem}_{split}{out.suffix}"
    files = [out, out.with_name(held_out)] if split else [out]
    for path in files:
        existing = path.parent.glob(shard_pattern(path).name) if in_shards(args) else [path] * path.exists()
        for file in [] if args.force else existing:
            raise ValueError(f"{file} exists already: --force replaces it")
    return files


def in_shards(args: argparse.Namespace) -> bool:
    """Whether OUT names shards."""
    return args.out.suffix in SHARD_SUFFIXES


@contextmanager
def image_folder(args: argparse.Namespace) -> Iterator[tuple[Path, Path]]:
    """Context manager that gives the folder of the images, and the folder to write images to.

    Both are the same, except for a layout that holds the images itself: then the second is a temporary folder, which
    becomes the first at the end of a block without an error. For shards, both are a temporary folder.

    Raises:
        ValueError: the folder exists already, and is never replaced, since other images may be in it; or shards were
            asked for, and a folder for the images of such a layout.
    """
    if "images" not in LAYOUTS[args.layout].arguments:
        folder = args.images or (args.source if args.source.is_dir() else args.source.parent)
        yield folder, folder
        return
    if in_shards(args):
        if args.images:
            raise ValueError(f"--images {args.images}: the images are written into {shard_pattern(args.out)}")
        args.out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=args.out.parent) as folder:
            yield Path(folder), Path(folder)
        return
    final = args.images or args.out.parent / "images"
    if final.exists():
        raise ValueError(f"{final} exists already: remove it, or name a new folder with --images")
    with atomic_write(final) as temporary:
        temporary.mkdir()
        yield final, temporary


def read(args: argparse.Namespace, source: Path, images: Path) -> list[dict]:
    """All samples of a source, checked; images that it holds itself are written to `images`.

    Raises:
        FileNotFoundError: there is no source.
        ValueError: a sample is wrong, or there are no samples.
    """
    if not source.exists():
        raise FileNotFoundError(f"there is no {str(source)!r}")
    layout = LAYOUTS[args.layout]
    values = {**vars(args), "source": source, "images": images}
    pairs = layout.read(*(values[name] for name in layout.arguments))
    with progress_bar("samples", total=None) as bar:
        samples = []
        for sample in check_samples(pairs, args.question):
            samples.append(sample)
            bar.update()
    if not samples:
        raise ValueError(f"{source}: nothing to convert in it")
    return samples


def read_test(args: argparse.Namespace, images: Path) -> list[dict]:
    """The samples of --test, their image paths relative to the same folder as those of the source."""
    samples = read(args, args.test, images)
    folder = args.test if args.test.is_dir() else args.test.parent
    if "images" not in LAYOUTS[args.layout].arguments and not args.images:
        for sample in samples:
            paths = (image_path(folder, image) for image in sample["images"])
            sample["images"] = [path if is_data_uri(path) else os.path.relpath(path, images) for path in paths]
    return samples


def report(path: Path, samples: Sequence[dict]) -> str:
    """The numbers of samples, turns and images of a file, in a line."""
    turns = sum(len(sample["turns"]) for sample in samples)
    images = len({image for sample in samples for image in sample["images"]})
    return f"{path}: {len(samples)} samples, {turns} turns, {images} images"


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads, checks and writes the samples, and prints a config and the next command."""
    args = parse_args(arguments)
    if args.test and getattr(args, "questions", None):
        raise ValueError("--test reads one file: convert a test split whose questions are in a second file by itself")
    if args.shard_size is not None and (not in_shards(args) or args.shard_size < 1):
        choices = " or ".join(SHARD_SUFFIXES)
        raise ValueError(f"--shard-size {args.shard_size}: at least 1, for an --out that ends in {choices}")
    files = out_files(args)
    with image_folder(args) as (images, new_images):
        splits = [read(args, args.source, new_images)]
        if args.val:
            splits = split_samples(*splits, args.val, args.seed)
        elif args.test:
            splits.append(read_test(args, new_images))
        samples = dict(zip(files, splits, strict=True))
        if in_shards(args):
            write_shards(samples, new_images, (args.shard_size or 256) * 10**6)
        else:
            write(samples)
    if in_shards(args):
        files, images = [shard_pattern(path) for path in files], None
    for path, split in zip(files, splits, strict=True):
        print(report(path, split))
    if args.test:
        train, test = ([dict(sample, id="") for sample in split] for split in splits)
        known = {json.dumps(sample) for sample in train}
        both = sum(json.dumps(sample) in known for sample in test)
        if both:
            print(f"warning: {both} of {len(test)} samples of {args.test} are training data, too")
    name = f"configs/mmgpt/{name_of(args.out)}.py"
    print(f"\nA config for it (save it as {name}):\n")
    print(config(files[0], files[1] if len(files) > 1 else None, images, splits[0]))
    print(f"Next: python tools/analysis_tools/check_dataset.py {name}")


if __name__ == "__main__":
    tool.run(main)
