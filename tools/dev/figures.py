"""Figures of the code's shape: sizes, private functions, names of a config, and the frames of two roads.

    python tools/dev/figures.py            # sizes and names
    python tools/dev/figures.py --frames   # also runs a tiny training and a tiny chat under a tracer

The roads are counted by running: our own functions that are on the stack when `tools/train.py` first computes a
cross-entropy, and when the language model is first called for a question of `demo/chat.py`. They need the quickstart's
data (bash tools/quickstart.sh, or another folder with --data).
"""

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All functions and methods in a module."""
    return [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def uses(tree: ast.AST) -> Counter:
    """How often each name is read in a module, as a name, an attribute or an import."""
    found: Counter = Counter()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            found[node.id] += 1
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            found[node.attr] += 1
        elif isinstance(node, ast.ImportFrom):
            found.update(alias.name for alias in node.names)
    return found


def shape(package: Path) -> dict[str, float]:
    """Files, lines, mean length of a function, and private functions, of which one caller has how many."""
    trees = {path: ast.parse(path.read_text()) for path in sorted(package.rglob("*.py"))}
    every = [(path, function) for path, tree in trees.items() for function in functions(tree)]
    private = [(path, node.name) for path, node in every if node.name.startswith("_") and not node.name.endswith("__")]
    called = {path: uses(tree) for path, tree in trees.items()}
    names = Counter(path.name for path in trees if path.name != "__init__.py")
    return {
        "files": len(trees),
        "lines": sum(len(path.read_text().splitlines()) for path in trees),
        "functions": len(every),
        "mean lines of a function": round(sum(f.end_lineno - f.lineno + 1 for _, f in every) / len(every), 1),
        "private functions": len(private),
        "private functions with one caller": sum(called[path][name] == 1 for path, name in private),
        "file names used more than once": sum(count > 1 for count in names.values()),
    }


def config_names(path: Path) -> int:
    """The number of top-level names of a loaded config."""
    sys.path.insert(0, str(ROOT))
    from mmgpt.cli import load_config

    return len(load_config(path))


# Runs a script and prints our own frames at the first call of a function that `stop` picks out.
TRACED = """
import json, os, runpy, sys, threading
root, stop, argv = {root!r}, {stop!r}, {argv!r}
sys.path.insert(0, root)
frames = {{}}

def profile(frame, event, arg):
    if event != "call" or frame.f_code.co_name != stop[1] or not frame.f_code.co_filename.endswith(stop[0]):
        return
    if stop[2] not in frames:
        stack, current = [], frame
        while current is not None:
            name = current.f_code.co_filename
            if name.startswith(root + "/") and "/.venv/" not in name and not current.f_code.co_name.startswith("<"):
                stack.append((os.path.relpath(name, root), current.f_code.co_name))
            current = current.f_back
        # The thread that asks waits for the one that answers: both stacks are the road.
        others = [thread for ident, thread in sys._current_frames().items() if ident != threading.get_ident()]
        for current in others:
            while current is not None:
                name = current.f_code.co_filename
                if name.startswith(root + "/") and "/.venv/" not in name and not current.f_code.co_name.startswith("<"):
                    stack.append((os.path.relpath(name, root), current.f_code.co_name))
                current = current.f_back
        frames[stop[2]] = stack[::-1]
        print("FRAMES" + json.dumps(frames[stop[2]]), flush=True)
        os._exit(0)

threading.setprofile(profile)
sys.setprofile(profile)
sys.argv = argv
runpy.run_path(argv[0], run_name="__main__")
"""


def road(argv: list[str], stop: tuple[str, str, str], stdin: str = "") -> list[tuple[str, str]]:
    """Our functions that are on the stack when a script first calls a function: (file, name), the outermost first.

    Args:
        argv: of the script.
        stop: end of the file and name of the function, and a word for it.
        stdin: what is typed.
    """
    code = TRACED.format(root=str(ROOT), stop=stop, argv=argv)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, input=stdin, capture_output=True, text=True)
    for line in done.stdout.splitlines():
        if "FRAMES" in line:
            return [tuple(frame) for frame in json.loads(line.partition("FRAMES")[2])]
    raise RuntimeError(f"{' '.join(argv)} never called {stop[1]} of {stop[0]}:\n{done.stderr}")


def roads(data: Path) -> dict[str, list[tuple[str, str]]]:
    """The two roads: of a training to its first cross-entropy, of a chat to the first call of the language model."""
    base = ROOT / "checkpoints" / "tiny"
    parts = {"language_model": "language", "vision_model": "vision", "flamingo_weights": "flamingo.safetensors"}
    options = [f"{name}={base / part}" for name, part in parts.items()]
    config = str(ROOT / "configs" / "mmgpt" / "tiny_lora_joint.py")
    with tempfile.TemporaryDirectory() as folder:
        data_options = [f"data_root={data}/", "train_dataloader.num_workers=0"]
        train = [
            str(ROOT / "tools" / "train.py"),
            config,
            "--work-dir",
            folder,
            "--cfg-options",
            *options,
            *data_options,
        ]
        chat = [str(ROOT / "demo" / "chat.py"), config, "--device", "cpu", "--cfg-options", *options]
        return {
            "tools/train.py to cross_entropy": road(train, ("torch/nn/functional.py", "cross_entropy", "loss")),
            "demo/chat.py to the first token": road(chat, ("modeling_llama.py", "forward", "token"), "What is it?\n"),
        }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="Print figures of the code's shape")
    parser.add_argument("--frames", action="store_true", help="also run a training and a chat under a tracer")
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "tiny", help="the tiny world's data")
    args = parser.parse_args()
    for name, value in shape(ROOT / "mmgpt").items():
        print(f"{name:36} {value}")
    print(f"{'top-level names of lora_joint.py':36} {config_names(ROOT / 'configs/mmgpt/lora_joint.py')}")
    if args.frames:
        for name, frames in roads(args.data).items():
            print(f"\n{name}: {len(frames)} functions of ours")
            print("\n".join(f"  {path}: {function}" for path, function in frames))


if __name__ == "__main__":
    main()
