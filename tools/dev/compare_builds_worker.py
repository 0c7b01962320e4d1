"""Measurements of one tree for compare_builds.py, which starts this in the tree's root, with the tree on the path.

What is used of it is only what trees of the last releases have in common: configs, `build_model`, `Chat`, the collate
function, and commands. All weights are random; 27M are the shapes of configs/mmgpt/benchmark.py, 135M those of
SmolLM2-135M with EfficientNet-Lite0.
"""

import json
import os
import re
import resource
import shlex
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

# From the root of the tree.
BENCHMARK, TINY = "configs/mmgpt/benchmark.py", "configs/mmgpt/tiny_lora_joint.py"
LLAMA_135M = dict(
    model_type="llama",
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    tie_word_embeddings=True,
    max_position_embeddings=8192,
)
GATED_135M = dict(every_n_layers=10, dim_head=64, heads=8, gate_init=0.5)
QUESTION = "what is at the left of the red circle, and what is behind the blue square? "
TOKENS = 32  # of an answer
STEPS = 10  # of a tuning, after as many others


def serve() -> None:
    """Answer requests, one in a line, until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Logs do not mix with the answers.
    # An editable installation would lend its modules to a tree that has none of their names.
    sys.meta_path = [finder for finder in sys.meta_path if "editable" not in getattr(finder, "__module__", "")]
    for request in sys.stdin:
        work, model, precision, batch, data = json.loads(request)
        result = WORKS[work](model, precision, batch, data)
        answers.write(json.dumps(result) + "\n")
        answers.flush()


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Processor seconds of this process and of its children, and wall seconds."""

    def clocks() -> tuple[float, float]:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + children.ru_utime + children.ru_stime, time.perf_counter()

    before = clocks()
    work()
    return tuple(after - start for after, start in zip(clocks(), before, strict=True))


def options_of(model: str) -> dict:
    """Options of BENCHMARK that make it this model."""
    options: dict = {"gated.gate_init": 0.5}
    if model == "135M":
        folder = _FOLDER
        if not (folder / "config.json").exists():
            write_language_model(folder)
        options = {
            "language_model": str(folder),
            "language": dict(path=str(folder), pretrained=False, _delete_=True),
            "vision": dict(type="ComparedEncoder", _delete_=True),
            "perceiver": dict(depth=2, num_latents=16),
            "gated": GATED_135M,
            "lora": dict(
                r=8,
                target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
                layers_to_transform=list(range(9, 30)),
            ),
        }
    return options


def write_language_model(folder: Path) -> None:
    """Write config and tokenizer of LLAMA_135M: the tiny base's tokens, and as many others as it takes."""
    from transformers import AutoConfig, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained("checkpoints/tiny/language")
    # Two of them are Flamingo's.
    tokenizer.add_tokens([f"<{i}>" for i in range(LLAMA_135M["vocab_size"] - len(tokenizer) - 2)])
    tokenizer.save_pretrained(folder)
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    AutoConfig.for_model(**LLAMA_135M, **ids).save_pretrained(folder)


def load_config(options: dict):
    """The config of BENCHMARK with options."""
    try:
        from mmgpt.cli import load_config
    except ImportError:  # before November 2026
        from mmgpt.engine import load_config
    return load_config(BENCHMARK, options)


def register_encoder() -> None:
    """Register the image encoder of 135M: this tree's TimmVision, or the same network where there is none."""
    import timm
    from torch import nn

    from mmgpt.registry import MODELS

    arguments = dict(model="tf_efficientnet_lite0", pretrained=False, layer=3)
    try:
        from mmgpt.models import TimmVision

        MODELS.register_module("ComparedEncoder", force=True, module=lambda: TimmVision(**arguments))
    except ImportError:

        class ComparedEncoder(nn.Module):
            def __init__(self):
                super().__init__()
                self.tower = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(3,))
                self.width = self.tower.feature_info.channels()[-1]

            def forward(self, pixels):
                return self.tower(pixels)[0].flatten(2).transpose(1, 2)

        MODELS.register_module("ComparedEncoder", force=True, module=ComparedEncoder)


@lru_cache(maxsize=1)
def trained_model(model: str, precision: str):
    """A model in training mode, and its packed batches."""
    from mmengine.registry import init_default_scope

    from mmgpt.apis import build_model
    from mmgpt.datasets.collate import collate_conversations

    init_default_scope("mmgpt")
    if model == "135M":
        register_encoder()
    cfg = load_config({**options_of(model), "language.dtype": precision})
    built = build_model(cfg).train()
    if model == "135M":
        # These are trained in full.
        for name, parameter in built.named_parameters():
            if ("perceiver" in name or ".gated." in name) and "lora_" not in name:
                parameter.data = parameter.data.float()
                parameter.requires_grad_(True)
    row_length = 512 if model == "27M" else 48
    batches = [collate_conversations(samples, row_length=row_length) for samples in drawn(built, model)]
    return built, [built.data_preprocessor(batch, training=True) for batch in batches]


def drawn(model, name: str) -> list[list[dict]]:
    """Samples of random tokens of two batches (27M) or of one (135M)."""
    import torch

    generator = torch.Generator().manual_seed(0)
    image_id = model.tokenizer.convert_tokens_to_ids("<image>")
    if name == "135M":
        lengths = [(48, True)] * 32
        count = 1
    else:
        # About as long as those of docs/benchmarks.md: eight visual and eight language samples, mixed.
        visual, language = (60, 68, 78, 87, 97, 110, 130, 180), (60, 86, 115, 148, 190, 245, 330, 512)
        lengths = [
            pair for each in zip(visual, language, strict=True) for pair in zip(each, (True, False), strict=True)
        ]
        count = 2
    samples = []
    for length, has_image in lengths:
        ids = torch.randint(100, 800, (length,), generator=generator)
        pixels = None
        if has_image:
            ids[4] = image_id
            pixels = torch.randn(1, 3, 224, 224, generator=generator)
        labels = torch.where(torch.arange(length) < length * (2 if has_image else 1) // 3, -100, ids)
        source = "visual" if has_image else "language"
        samples.append(dict(pixels=pixels, input_ids=ids, labels=labels, source=source, meta={}))
    size = len(samples) // count
    return [samples[i * size : (i + 1) * size] for i in range(count)]


def step(model: str, precision: str, *_) -> tuple[float, float]:
    """Forward and backward pass of each batch."""
    built, batches = trained_model(model, precision)

    def work() -> None:
        for batch in batches:
            loss, _ = built.parse_losses(built(**batch, mode="loss"))
            loss.backward()
            built.zero_grad(set_to_none=True)

    return timed(work)


@lru_cache(maxsize=1)
def chat_of(model: str, precision: str):
    """A chat without a prefix cache."""
    from mmengine.registry import init_default_scope

    from mmgpt.apis import Chat
    from mmgpt.datasets.instruction import build_pipeline

    init_default_scope("mmgpt")
    if model == "135M":
        register_encoder()
    cfg = load_config(options_of(model))
    from mmgpt.apis.precision import build_for_serving

    built = build_for_serving(cfg, precision=precision)
    try:
        return Chat(built, build_pipeline(cfg.chat_pipeline), scheduler=dict(cache_bytes=0, max_batch=16))
    except TypeError:  # before November 2026
        return Chat(built, build_pipeline(cfg.chat_pipeline), engine=dict(cache_bytes=0, max_batch=16))


def questions(count: int) -> list:
    """Conversations of one question about an image each."""
    from PIL import Image

    from mmgpt.apis import Conversation

    result = []
    for i in range(count):
        conversation = Conversation()
        ask = getattr(conversation, "with_question", None) or conversation.asked
        result.append(ask(f"{i}: {QUESTION * 3}", [Image.new("RGB", (224, 224), (i, 0, 0))]))
    return result


def prefill(model: str, precision: str, *_) -> tuple[float, float]:
    """From a question to the first token of its answer."""
    return answers(chat_of(model, precision), 1, 1)


def decode(model: str, precision: str, batch: int, *_) -> tuple[float, float]:
    """The further tokens of TOKENS, of questions that arrive at once."""
    chat = chat_of(model, precision)
    long, short = answers(chat, batch, TOKENS), answers(chat, batch, 1)
    return tuple((both - first) / (TOKENS - 1) for both, first in zip(long, short, strict=True))


def answers(chat, count: int, tokens: int) -> tuple[float, float]:
    """Seconds of answers of so many tokens."""
    scheduler = getattr(chat, "scheduler", None) or chat.engine
    asked = questions(count)

    def work() -> None:
        with scheduler.paused():
            # Random weights hardly ever choose the one token that would end an answer. min_new_tokens would rule that
            # out, but by changing the logits of the whole vocabulary at each step.
            submitted = [chat.submit(one, dict(max_new_tokens=tokens, eos_token_id=0)) for one in asked]
        for answer in submitted:
            answer.text()

    return timed(work)


def import_chat(*_) -> tuple[float, float]:
    """Importing what demo/chat.py imports before it reads weights."""
    return timed(lambda: subprocess.run([sys.executable, "-c", "from mmgpt.apis import Chat"], check=True))


def first_token(*_) -> tuple[float, float]:
    """demo/chat.py with one question, from its start to its end."""
    command = [sys.executable, "demo/chat.py", TINY, "--image", "demo/examples/shapes.png", "--max-new-tokens", "1"]
    return timed(lambda: subprocess.run(command, input="what is it?\n", text=True, check=True))


def first_step(model: str, precision: str, batch: int, data: str) -> tuple[float, float]:
    """tools/train.py to the end of its first step."""

    def work() -> None:
        with training(data, os.environ) as (_, steps):
            next(steps)

    return timed(work)


def tuning(*arguments, busy: int = 0) -> tuple[float, float]:
    """A step of tools/train.py with as many threads as there are cores, beside `busy` other processes."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    with ExitStack() as others:
        for _ in range(busy):
            others.enter_context(busy_process())
        # A process that loads data would have to share the cores with the threads.
        with training(arguments[-1], environment, "train_dataloader.num_workers=0") as (process, steps):
            clocks = []
            for last in (STEPS, 2 * STEPS):
                while next(steps) < last:
                    pass
                used = psutil.Process(process.pid).cpu_times()
                clocks.append((used.user + used.system, time.perf_counter()))
    return tuple((after - before) / STEPS for before, after in zip(*clocks, strict=True))


@contextmanager
def busy_process() -> Iterator[None]:
    """Another program that keeps a core busy, until this process ends at the latest.

    Linux shares the cores among sessions first (autogroup), so that it has its own.
    """
    code = f"import os\nwhile os.getppid() == {os.getpid()}: pass"
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def training(
    data: str, environment: Mapping[str, str], *options: str
) -> Iterator[tuple[subprocess.Popen, Iterator[int]]]:
    """A running tools/train.py of TINY, and the numbers of its steps as they end; it is killed afterwards."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-u", "tools/train.py", TINY, "--work-dir", folder, "--cfg-options", *options]
        command += [f"data_root={data}", "default_hooks.logger.interval=1"]
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        with subprocess.Popen(command, env=environment, **pipes) as process:
            try:
                yield process, steps_of(process)
            finally:
                process.kill()


def steps_of(process: subprocess.Popen) -> Iterator[int]:
    """The numbers of a training's steps as they end. RuntimeError with the end of its output when it ends itself."""
    shown: deque[str] = deque(maxlen=20)
    for line in process.stdout:
        shown.append(line)
        match = re.search(r"\(train\).*?\[ *(\d+)/.*loss:", line)
        if match:
            yield int(match[1])
    raise RuntimeError(f"{shlex.join(process.args)} ended:\n{''.join(shown)}")


WORKS = {
    "step": step,
    "prefill": prefill,
    "decode": decode,
    "import_chat": import_chat,
    "first_token": first_token,
    "first_step": first_step,
    "tuning": tuning,
    "tuning_busy": partial(tuning, busy=2),
}

if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        _FOLDER = Path(folder)
        serve()
