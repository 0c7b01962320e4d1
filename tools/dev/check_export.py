"""Check of `export --format transformers`: an environment without mmgpt against Chat with the same model.

    python tools/dev/check_export.py CONFIG CHECKPOINT [--merged] [--packages FOLDER]

1. The model is exported, and conversations are made up: none, one and two images, and second turns.
2. A new environment has the packages of this one without mmgpt and OpenMMLab's; those of --packages come first (pip
   install --target FOLDER --no-deps transformers). There, Auto classes and pipeline open the folder by
   trust_remote_code.
3. Token ids, pixels, logits (each conversation alone, and in a left-padded batch) and greedy answers (with a KV cache,
   without one, in a batch, and by the pipeline) are compared with those of Chat.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import torch
import transformers
from PIL import Image, ImageDraw

from mmgpt.apis import Chat, Conversation, build_model, read_image
from mmgpt.cli import load_config
from mmgpt.cli.options import add_cfg_options
from mmgpt.datasets.parsers import messages as parse
from mmgpt.hf.export import export_transformers

ALONE = Path(__file__).parents[2] / "tests" / "helpers" / "transformers_alone.py"
LEFT_OUT = ("mmgpt", "__editable__", "mmengine", "onedl_mmengine", "mmcv", "mmpretrain")
COLOURS = ("red", "green", "blue", "yellow", "white", "black")
QUESTIONS = (
    "What colour is the {0}?",
    "Is there a {0}?",
    "How many shapes are there?",
    "Describe the picture.",
    "Is the {0} {1}, or is it </s> <image>?",
    "Write a word that rhymes with {1}.",
)


def draw_image(rng: random.Random, path: Path) -> str:
    """The path of a new image of shapes, of a random size."""
    image = Image.new("RGB", (rng.randint(40, 400), rng.randint(40, 400)), rng.choice(COLOURS))
    for _ in range(rng.randint(1, 3)):
        x, y = rng.random() * 0.7 * image.width, rng.random() * 0.7 * image.height
        shape = rng.choice((ImageDraw.Draw(image).ellipse, ImageDraw.Draw(image).rectangle))
        shape((x, y, x + 0.3 * image.width, y + 0.3 * image.height), fill=rng.choice(COLOURS))
    image.save(path)
    return str(path)


def some_messages(rng: random.Random, number: int, folder: Path) -> list[dict]:
    """The messages of a conversation with 0, 1 or 2 images by its number, every other one with a second turn."""
    images = [draw_image(rng, folder / f"{number}_{image}.png") for image in range(number % 3)]
    contents = [{"type": "image", "path": path} for path in images]
    question, other = (
        q.format(rng.choice(("circle", "square")), rng.choice(COLOURS)) for q in rng.sample(QUESTIONS, 2)
    )
    messages = [{"role": "user", "content": [*contents, {"type": "text", "text": question}]}]
    if number % 2:
        second = [{"type": "text", "text": other}]
        # The second image comes with the second question.
        second[:0] = [messages[0]["content"].pop(1)] if len(images) == 2 else []
        messages += [{"role": "assistant", "content": rng.choice(COLOURS)}, {"role": "user", "content": second}]
    return messages


def conversation(messages: list[dict]) -> Conversation:
    """The same conversation for Chat."""
    # The parser leaves a last question without an answer out.
    sample = parse({"messages": [*messages, {"role": "assistant", "content": "none"}]})
    del sample["turns"][-1]["answer"]
    return Conversation(sample["turns"], [read_image(path) for path in sample["images"]])


def make_environment(folder: Path) -> Path:
    """The interpreter of a new virtual environment with the packages of this one, but for those LEFT_OUT."""
    venv.create(folder, with_pip=False)
    [packages] = folder.glob("lib/python*/site-packages")
    for path in map(Path, sys.path):
        if path.name in ("site-packages", "dist-packages"):
            for entry in path.iterdir():
                if not entry.name.lower().startswith(LEFT_OUT) and not (packages / entry.name).exists():
                    (packages / entry.name).symlink_to(entry)
    return folder / "bin" / "python"


def difference(values: torch.Tensor, others: torch.Tensor) -> float:
    """The largest difference, relative to the largest value where that is above 1; infinity for NaN, other shapes."""
    if values.shape != others.shape:
        return float("inf")
    relative = (values.float() - others.float()).abs().max() / others.float().abs().max().clamp(min=1)
    return relative.nan_to_num(nan=float("inf")).item()


def compare(output: dict, chat: Chat, conversations: list[Conversation], length: int) -> dict[str, float]:
    """What differs between the output of `transformers_alone.open_folder` and Chat.

    Returns:
        The numbers of conversations with other `ids` and other `answers`, and the differences of `pixels`, `logits` and
        `batch_logits`.
    """
    batch, pixels = output["batch"], iter(output["batch"].get("pixel_values", ()))
    answers = chat.answer_all(conversations, dict(max_new_tokens=length, num_beams=1, do_sample=False))
    print(f"{len(answers)} answers, {len(set(answers))} of them different, such as {answers[:4]}")
    more = zip(output["more"], answers[len(output["rows"]) :], strict=True)
    found = dict(ids=0, answers=sum(theirs != ours for theirs, ours in more), pixels=0.0, logits=0.0, batch_logits=0.0)
    for number, row in enumerate(output["rows"]):
        inputs = chat.prepare(conversations[number])
        ids = inputs["input_ids"][0].tolist()
        found["ids"] += not row["input_ids"][0].tolist() == batch["input_ids"][number, -len(ids) :].tolist() == ids
        ways = [row["cached"], row["uncached"], output["pipeline"][number], [batch["answers"][number]]]
        found["answers"] += any(way != [answers[number]] for way in ways)
        for index, image in enumerate([] if inputs["pixels"] is None else inputs["pixels"][0]):
            for theirs in (row["pixel_values"][index], next(pixels)):
                found["pixels"] = max(found["pixels"], difference(theirs, image))
        with torch.no_grad():
            logits = chat.model(**inputs, mode="tensor")[0]
        found["logits"] = max(found["logits"], difference(row["logits"][0], logits))
        theirs = batch["logits"][number, -len(ids) :]
        found["batch_logits"] = max(found["batch_logits"], difference(theirs, logits))
    return found


def main() -> None:
    """Print what differs; exit code 1 where that is more than rounding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("checkpoint")
    parser.add_argument("--merged", action="store_true", help="export with LoRA added into the weights")
    parser.add_argument("--packages", default="", help="folder with packages that replace those of this environment")
    parser.add_argument("--conversations", type=int, default=20, help="number of those that are compared in full")
    parser.add_argument("--answers", type=int, default=200, help="number of all greedy answers")
    parser.add_argument("--length", type=int, default=16, help="longest answer in tokens")
    add_cfg_options(parser)
    args = parser.parse_args()
    cfg, rng = load_config(args.config, args.cfg_options or {}), random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export_transformers(cfg, build_model(cfg, args.checkpoint, device="cpu"), folder / "model", args.merged)
        messages = [some_messages(rng, number, folder) for number in range(max(args.conversations, args.answers))]
        several, more = messages[: args.conversations], messages[args.conversations :]
        job = dict(conversations=several, more=more, length=args.length)
        (folder / "job.json").write_text(json.dumps(job))
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        environment |= {
            "HF_HOME": str(folder / "home"),
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": args.packages and str(Path(args.packages).resolve(strict=True)),
        }
        command = [make_environment(folder / "venv"), ALONE, folder / "job.json", folder / "out.pt", folder / "model"]
        subprocess.run(command, env=environment, cwd=folder, check=True)
        [output] = torch.load(folder / "out.pt")
        chat = Chat.from_config(cfg, args.checkpoint, device="cpu")
        found = compare(output, chat, list(map(conversation, messages)), args.length)
        chat.close()
    print(f"transformers {output['version']} without mmgpt; Chat with transformers {transformers.__version__}")
    print(", ".join(f"{name} {value:.2g}" for name, value in found.items()))
    limits = dict(ids=0, answers=0, pixels=1e-6, logits=1e-5, batch_logits=1e-5)
    sys.exit(any(found[name] > limit for name, limit in limits.items()))


if __name__ == "__main__":
    main()
