"""Options of the command line; torch and transformers, which take seconds, are not imported for --help."""

import argparse

from mmengine.config import DictAction


def runner_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the arguments that tools/train.py and tools/test.py have in common."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument("config", help="config file")
    result.add_argument("--work-dir", help="folder for logs and checkpoints; default: work_dirs/<name of the config>")
    result.add_argument("--cfg-options", nargs="+", action=DictAction, metavar="NAME=VALUE", help="change the config")
    result.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    # torch.distributed.launch passes it, torchrun sets the environment variable.
    result.add_argument("--local-rank", "--local_rank", type=int, default=0, help=argparse.SUPPRESS)
    return result
