"""Checks and measures training and answers on a GPU, in nine minutes: what works, and how fast.

    python tools/analysis_tools/gpu_check.py
    python tools/analysis_tools/gpu_check.py --parts training decoding
    python tools/analysis_tools/gpu_check.py --device cpu --tiny          a rehearsal on a CPU, in a minute

Each part runs within its own time in a process that it shares with no part that failed, so that one that fails, hangs
or dies leaves the others alone. After each part report.json and report.md are written. The exit code is 1 when a part
failed or ran out of its time. docs/benchmarks.md says what the figures mean.
"""

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

# The folder benchmarks/ is not part of the package.
sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.gpu.parts import PARTS, Figure, Setting, Worker  # noqa: E402
from mmgpt.cli import tool  # noqa: E402
from mmgpt.utils.atomic import atomic_write  # noqa: E402

SHORTEST = 5  # seconds that have to be left for a part to begin


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line."""
    titles = "\n".join(f"  {name:<12}{part.title}" for name, part in PARTS.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nParts:\n{titles}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--parts", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART", help="default: all, in order"
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="default: %(default)s")
    parser.add_argument("--tiny", action="store_true", help="models of a test's size instead of the 9B model's sizes")
    parser.add_argument("--minutes", type=float, default=9, help="for all parts together (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/gpu_check"), help="folder (default: %(default)s)")
    args = parser.parse_args(arguments)
    if args.device == "cpu" and not args.tiny:
        parser.error("--device cpu needs --tiny: a CPU takes hours for the 9B model")
    return args


def markdown(report: Mapping) -> str:
    """The report as tables in Markdown: the figures, and the parts with their statuses."""
    lines = ["| part | figure | value | goal | reached |", "|---|---|---|---|---|"]
    for part in report["parts"]:
        for figure in part["figures"]:
            value, unit = figure["value"], figure["unit"]
            text = value if isinstance(value, str) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
            reached = {None: "", True: "yes", False: "no"}[figure["met"]]
            cells = part["name"], figure["name"], f"{text} {unit}".strip(), figure["goal"], reached
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| part | what it is | status | seconds |", "|---|---|---|---|"]
    for part in report["parts"]:
        status = ": ".join(filter(None, (part["status"], part["reason"]))).replace("|", "/").replace("\n", " ")
        lines.append(f"| {part['name']} | {part['title']} | {status} | {part['seconds']:.0f} |")
    return "\n".join(lines) + "\n"


def write(report: Mapping, folder: Path) -> None:
    """Write report.json and report.md."""
    for name, text in (("report.json", json.dumps(report, indent=2) + "\n"), ("report.md", markdown(report))):
        with atomic_write(folder / name) as path:
            path.write_text(text, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the parts, write the report after each, and print a line for each."""
    args = parse_args(arguments)
    if args.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    args.out.mkdir(parents=True, exist_ok=True)
    start, log = time.monotonic(), args.out / "log.txt"
    log.write_text("")
    command = shlex.join(["tools/analysis_tools/gpu_check.py", *(sys.argv[1:] if arguments is None else arguments)])
    report = {"command": command, "device": args.device, "tiny": args.tiny, "seconds": 0.0, "parts": []}
    worker = Worker(Setting(args.device, args.tiny), log, {name: part.function for name, part in PARTS.items()})
    try:
        for name in dict.fromkeys(args.parts):
            figures: list[Figure] = []
            begin = time.monotonic()
            # A rehearsal may run on a busy machine, where its parts take any share of the whole time.
            seconds = min(PARTS[name].seconds * (10 if args.tiny else 1), start + 60 * args.minutes - begin)
            if seconds < SHORTEST:
                status, reason = "skipped", f"the {args.minutes:g} minutes are over"
            else:
                status, reason = worker.run(name, seconds, figures.append)
            now = time.monotonic()
            report["parts"].append(
                {
                    "name": name,
                    "title": PARTS[name].title,
                    "status": status,
                    "reason": reason,
                    "seconds": round(now - begin, 1),
                    "figures": [figure._asdict() for figure in figures],
                }
            )
            report["seconds"] = round(now - start, 1)
            write(report, args.out)
            print(f"{name:<12}{status} in {now - begin:.0f} s{': ' * bool(reason)}{reason}", flush=True)
    finally:
        worker.close()
    print(f"\n{markdown(report)}\n{args.out / 'report.json'}\n{args.out / 'report.md'}")
    if any(part["status"] in ("failed", "timed out") for part in report["parts"]):
        raise SystemExit(1)


if __name__ == "__main__":
    tool.run(main)
