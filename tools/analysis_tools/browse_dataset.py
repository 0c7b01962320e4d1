"""HTML page of the batches that a model gets: a config's data loader after all transforms, token by token.

    python tools/analysis_tools/browse_dataset.py configs/mmgpt/lora_joint.py

The page is written to work_dirs/<name of config>/browse/. The batches are those of one process of a run, in their
order. No model is built. Where the model gets cached features, the page has the images that they were computed from.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from mmengine.logging import MMLogger
from torch.utils.data import DataLoader

from mmgpt.cli import check_files, load_config, tool
from mmgpt.cli.config import without_caches
from mmgpt.cli.files import SECTIONS
from mmgpt.cli.options import add_cfg_options
from mmgpt.datasets.inspection.check import SPLITS
from mmgpt.datasets.inspection.views import dataset_name, read_rows, shown_datasets
from mmgpt.engine.loader import dataloader_of_rank
from mmgpt.utils.progress_bar import progress_bar
from mmgpt.visualization import Batch, write_page


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file")
    parser.add_argument("--split", choices=SPLITS, default=SPLITS[0], help="default: %(default)s")
    parser.add_argument("--batches", type=int, default=3, help="number of batches; default: 3")
    parser.add_argument("--dataset", metavar="NAME", help="show only rows of this dataset, of batches that have any")
    parser.add_argument("--epoch", type=int, default=0, help="training epoch, from 0; default: 0")
    parser.add_argument("--rank", type=int, default=0, help="process whose batches are shown; default: 0")
    parser.add_argument("--world-size", type=int, default=1, help="number of processes; default: 1")
    parser.add_argument("--png", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="folder; default: work_dirs/<name of config>/browse")
    add_cfg_options(parser)
    args = parser.parse_args(arguments)
    args.out = args.out or Path("work_dirs") / Path(args.config).stem / "browse"
    return args


def choose(loader: DataLoader, number: int, only: str | None) -> dict[int, list[int]]:
    """First batches of a loader as number -> sample indices; `only` limits them to those with samples of a dataset.

    Raises:
        ValueError: no dataset has that name, or the epoch has no such batch.
    """
    batches = enumerate(loader.batch_sampler)
    if only is not None:
        names = sorted({dataset.name for dataset in shown_datasets(loader.dataset)})
        if only not in names:
            raise ValueError(f"--dataset {only!r}: choose one of {', '.join(names)}")
        batches = (
            (number, indices)
            for number, indices in batches
            if any(dataset_name(loader.dataset, idx) == only for idx in indices)
        )
    chosen = dict(islice(batches, number))
    if not chosen:
        raise ValueError("this epoch has no batch" + (f" with a sample of dataset {only!r}" if only else ""))
    return chosen


def read(loader: DataLoader, chosen: Mapping[int, list[int]], only: str | None) -> Iterator[Batch]:
    """The chosen batches of the loader, with the rows to show."""
    datasets = shown_datasets(loader.dataset)
    batches = DataLoader(loader.dataset, batch_sampler=list(chosen.values()), collate_fn=loader.collate_fn)
    for number, batch in zip(chosen, batches, strict=True):
        yield Batch(number, read_rows(batch, datasets, only), len(batch["input_ids"]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the batches, write the page, print its path."""
    args = parse_args(arguments)
    if args.batches < 1:
        raise ValueError(f"--batches {args.batches}: at least one batch is shown")
    cfg = load_config(args.config, args.cfg_options)
    check_files(cfg, skip=set(SECTIONS) - {f"{args.split}_dataloader"})
    # Cached features cannot be shown, so the images are loaded instead.
    cfg[f"{args.split}_dataloader"] = without_caches(cfg.get(f"{args.split}_dataloader"))
    loader = dataloader_of_rank(cfg, args.split, args.rank, args.world_size, args.epoch)
    chosen = choose(loader, args.batches, args.dataset)
    with progress_bar("batches", len(chosen)) as bar:
        batches = []
        for batch in read(loader, chosen, args.dataset):
            batches.append(batch)
            bar.update()
    stem = args.out / f"{args.split}-epoch{args.epoch}-rank{args.rank}of{args.world_size}"
    about = {"split": args.split, "epoch": args.epoch, "rank": f"{args.rank} of {args.world_size}"}
    about |= {"only dataset": args.dataset} if args.dataset else {}
    if args.png:
        print("warning: --png is ignored: the HTML page shows what the sheets of batches showed", file=sys.stderr)
    print(f"written: {write_page(batches, args.config, about, f'{stem}.html')}")


if __name__ == "__main__":
    # The log line of each dataset repeats what the page shows.
    MMLogger.get_instance("mmengine", log_level="WARNING")
    tool.run(main)
