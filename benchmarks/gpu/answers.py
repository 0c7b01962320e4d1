"""Answers of the 9B model in bfloat16 with its LoRA merged: decoding, prefill, turns of a chat, and a server."""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import torch

from benchmarks.decoding import CACHED, UNCACHED, answer, question, second_turn
from benchmarks.rounds import Timer
from mmgpt.apis import Chat, Conversation
from mmgpt.apis.precision import for_serving
from mmgpt.datasets.instruction import build_pipeline
from mmgpt.engine.hooks.throughput import token_flops
from mmgpt.models import flamingo_of

from .models import build, config, measured_limits, seconds_of
from .parts import Figure, Setting, Skipped

ROOT = Path(__file__).parents[2]
BATCHES = (1, 8, 32)
WORDS = 60  # of a question
PACKAGES = ("openai", "httpx", "uvicorn", "fastapi")  # of the server and its clients


class Chats:
    """Chats of one model.

    Attributes:
        side: of a question's image, in pixels.
    """

    def __init__(self, setting: Setting):
        self.setting, self.cfg = setting, config(setting)
        self.model = for_serving(build(setting, self.cfg))
        self.side = self.cfg.prepare_images.size

    def __call__(self, **scheduler) -> Chat:
        """A chat whose Scheduler has these arguments."""
        return Chat(self.model, build_pipeline(self.cfg.chat_pipeline), scheduler=scheduler)

    def weight_bytes(self) -> int:
        """Bytes of the weights that a token is multiplied by."""
        language = flamingo_of(self.model).language
        embedding = language.get_input_embeddings().weight
        return sum(weight.nbytes for weight in language.parameters() if weight is not embedding)


def seconds_per_token(setting: Setting, chat: Chat, questions: Sequence[Conversation]) -> float:
    """Seconds of a step that decodes a token of each answer; the first token, with the prefill, is not counted."""
    tokens, rounds, seconds = *((5, 1) if setting.tiny else (65, 3)), []
    for _ in range(rounds + 1):
        answers = answer(chat, questions, tokens)
        end, first = (max(getattr(each, name) for each in answers) for name in ("seconds", "seconds_to_first"))
        seconds.append((end - first) / (tokens - 1))
    return median(seconds[1:])


def decoding(setting: Setting) -> Iterator[Figure]:
    """Speed of decoding at several batch sizes, as a share of the measured bandwidth that reading the weights takes."""
    chats = Chats(setting)
    bound = chats.weight_bytes() / measured_limits(setting).bytes
    yield Figure("weights of a step", chats.weight_bytes() / 2**30, "GiB")
    questions = [question(number, WORDS, chats.side) for number in range(max(BATCHES))]
    # A CPU's compiler takes a minute for a step; this backend traces it like any other, and compiles nothing.
    options = {"backend": "eager"} if setting.device == "cpu" else {"dynamic": False}
    kinds = {
        "plain": ({}, BATCHES),
        "static cache": (dict(static_cache=True), BATCHES),
        "static cache, compiled": (dict(static_cache=True, compile=options), BATCHES[:1]),
    }
    for kind, (scheduler, batches) in kinds.items():
        chat = chats(max_batch=max(BATCHES), cache_bytes=0, **scheduler)
        first = Timer(torch.device(setting.device))(lambda chat=chat: answer(chat, questions[:1], 2))
        yield Figure(f"{kind}: first answer", first, "s")
        for batch in batches:
            name, seconds = f"{kind}, batch {batch}", seconds_per_token(setting, chat, questions[:batch])
            share = bound / seconds
            yield Figure(name, batch / seconds, "tokens/s")
            yield Figure(f"{name}: a step", 1e3 * seconds, "ms")
            goal = ("70 % at least", share >= 0.7) if batch == 1 and scheduler else ()
            yield Figure(f"{name}: share of the bandwidth", 100 * share, "%", *goal)
        chat.close()


def turns(setting: Setting) -> Iterator[Figure]:
    """The time to the first token: of a question with an image, of a long one, and of a second turn."""
    chats = Chats(setting)
    chat, uncached = chats(), chats(cache_bytes=0)
    for name, words in (("a question with an image", WORDS), ("a long question", WORDS if setting.tiny else 1200)):
        asked = question(0, words, chats.side)
        tokens = chat.prepare(asked)["input_ids"].shape[1]
        seconds = seconds_of(setting, lambda asked=asked: answer(uncached, [asked], 1), 3)
        yield Figure(f"first token, {name} of {tokens} tokens", 1e3 * seconds, "ms")
        share = tokens * token_flops(chats.model) / 2 / seconds / measured_limits(setting).operations
        yield Figure(f"share of the product rate, {name}", 100 * share, "%")
    cases = second_turn(chat, uncached, WORDS, chats.side)
    times = {name: median([case() for _ in range(4)][1:]) for name, case in cases.items()}
    for name, seconds in times.items():
        yield Figure(f"first token, {name}", 1e3 * seconds, "ms")
    ratio = times[CACHED] / times[UNCACHED]
    yield Figure("second turn over computing all again", ratio, "", "below 1", ratio < 1)
    chat.close()
    uncached.close()


def server(setting: Setting) -> Iterator[Figure]:
    """tests/stress/load_server.py for 30 seconds, against a server in this process.

    Raises:
        Skipped: a package of the server or of its clients is not installed.
        ValueError: the load test fails with other errors than refusals; with its output.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise Skipped(f"not installed: {', '.join(missing)}")
    from mmgpt.server.run import make_server
    from mmgpt.server.settings import Settings

    settings = Settings(name="check")
    chat = Chats(setting)(max_batch=16, max_waiting=settings.max_requests)
    serving = make_server(chat, settings, "127.0.0.1", 0)
    thread = threading.Thread(target=serving.run)
    thread.start()
    while not serving.started:
        time.sleep(0.05)
    port = serving.servers[0].sockets[0].getsockname()[1]
    size = ["--clients", 2, "--seconds", 1, "--max-tokens", 2] if setting.tiny else ["--clients", 16, "--seconds", 30]
    command = [sys.executable, "tests/stress/load_server.py", "--url", f"http://127.0.0.1:{port}", *size]
    command += ["--images", "demo/examples/shapes.png"]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    serving.should_exit = True
    thread.join()
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if " " in line)
    if "answers" not in lines or not re.fullmatch(r"none|\{(429|503): \d+(, (429|503): \d+)*\}", lines["errors"]):
        raise ValueError("\n".join(f"{done.stdout}{done.stderr}".splitlines()[-20:]))
    for name in ("answers", "first", "tokens", "errors"):
        yield Figure({"first": "first text"}.get(name, name), lines[name].removeprefix("text").strip())
    # bfloat16 rounds otherwise in batches of another size, after which a random model may choose other tokens.
    yield Figure("answers other than for a single client", int(lines["different"].split()[0]))
