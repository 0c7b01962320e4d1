"""How fast a chat answers, beside the bare parts of its model, all in one process and in turns.

    python tools/analysis_tools/benchmark_chat.py configs/mmgpt/benchmark.py

The bare parts are the language model alone, of the same size and with the same LoRA, asked by transformers' generate
with the same settings, and the matrix products of the gated blocks alone. Printed are medians over the rounds: time to
the first token, time per token after it, the same of the bare parts, and the ratio of the times per token. A second
table has the first token of a second turn, all computed again, and with what was kept of the first turn.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from statistics import median

import torch
from mmengine.config import Config, DictAction
from peft import LoraConfig, get_peft_model
from PIL import Image
from rich.table import Table
from torch import nn
from torch.nn.functional import linear, scaled_dot_product_attention
from transformers import AutoModelForCausalLM

from mmgpt.apis import Chat, Conversation, build_model
from mmgpt.datasets.instruction import build_pipeline
from mmgpt.engine import load_config, tool
from mmgpt.engine.progress import progress_bar
from mmgpt.models.gated_lm import GatedCrossAttentionBlock
from mmgpt.visualization.tables import print_tables

PARTS = ("first", "token", "bare_first", "bare_token", "gated_token")
WORDS = "the red circle is at the top left and the blue square is at the right "


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("checkpoint", nargs="?", help="default: the model before tuning")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each measurement (default: 7)")
    parser.add_argument("--tokens", type=int, default=64, help="length of an answer (default: 64)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="questions at once (default: 1 8)")
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 3], help="default: 1 3")
    parser.add_argument("--words", type=int, default=60, help="length of a question (default: 60)")
    parser.add_argument("--device", help="default: the first GPU, or the CPU")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, metavar="NAME=VALUE")
    return parser.parse_args(arguments)


class Timer:
    """Seconds of calls, with what a GPU still computes waited for."""

    def __init__(self, device: torch.device):
        self.device = device

    def __call__(self, work: Callable[[], object]) -> float:
        """Seconds that `work` takes."""
        self._wait()
        start = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def question(number: int, words: int) -> Conversation:
    """A question with an image that no other number has."""
    text = f"{number}: " + " ".join((WORDS * words).split()[:words])
    return Conversation().asked(text, [Image.new("RGB", (224, 224), (number % 256, number // 256 % 256, 0))])


def answered(chat: Chat, asked: Sequence[Conversation], tokens: int, beams: int) -> None:
    """Waits for answers of so many tokens to questions that come at once."""
    settings = dict(max_new_tokens=tokens, min_new_tokens=tokens, num_beams=beams)
    with chat.engine.paused():
        answers = [chat.submit(each, settings) for each in asked]
    for answer in answers:
        answer.text()


def bare_model(chat: Chat, cfg: Config, merged: bool) -> nn.Module:
    """The language model alone: same sizes, same precision, and the same LoRA where that is not merged."""
    language = chat.engine.language.model
    model = AutoModelForCausalLM.from_config(language.config, dtype=language.dtype).to(language.device).eval()
    if not merged and "lora" in cfg:
        lora = {key: value for key, value in cfg.lora.items() if key != "exclude_modules"}
        model = get_peft_model(model, LoraConfig(**lora)).eval()
    return model


@torch.inference_mode()
def generated(model: nn.Module, length: int, batch: int, tokens: int, beams: int) -> None:
    """Waits for transformers' generate with prompts of so many tokens."""
    ids = torch.randint(10, 100, (batch, length), device=model.device)
    settings = dict(max_new_tokens=tokens, min_new_tokens=tokens, num_beams=beams, do_sample=False, pad_token_id=0)
    model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)


@torch.inference_mode()
def gated_products(chat: Chat, rows: int, tokens: int) -> None:
    """The matrix products of all gated blocks, and their attention to one image, for so many tokens of some rows."""
    blocks = [module for module in chat.engine.language.modules() if isinstance(module, GatedCrossAttentionBlock)]
    latents = chat.engine.reader.flamingo.perceiver.latents
    steps = []
    for block in blocks:
        weight = block.attn.to_q.weight
        heads, inner = block.attn.heads, weight.shape[0]
        x, wide = weight.new_zeros(rows, 1, weight.shape[1]), weight.new_zeros(rows, 1, block.ff[1].weight.shape[0])
        keys = weight.new_zeros(rows, heads, len(latents), inner // heads)
        steps.append((block, x, wide, keys))
    for _ in range(tokens):
        for block, x, wide, keys in steps:
            q = linear(x, block.attn.to_q.weight).view(rows, 1, keys.shape[1], -1).transpose(1, 2)
            seen = scaled_dot_product_attention(q, keys, keys)
            linear(seen.transpose(1, 2).flatten(2), block.attn.to_out.weight)
            linear(x, block.ff[1].weight)
            linear(wide, block.ff[3].weight)


class Case:
    """One line of the first table: times of one chat and of its bare parts, with so many questions and beams."""

    def __init__(self, args: argparse.Namespace, cfg: Config, chat: Chat, merged: bool, batch: int, beams: int):
        self.args, self.chat, self.batch, self.beams = args, chat, batch, beams
        self.name = f"{'merged' if merged else 'unmerged'}, {beams} beam{'s' * (beams > 1)}, batch {batch}"
        self.bare = bare_model(chat, cfg, merged)
        self.timer = Timer(self.bare.device)
        self.length = chat.prepare(question(0, args.words))["input_ids"].shape[1]

    def measure(self, numbers: Iterator[int]) -> dict[str, float]:
        """Seconds of each of PARTS, once."""
        tokens = self.args.tokens
        ours, bare = {}, {}
        for length in (1, tokens):
            asked = [question(next(numbers), self.args.words) for _ in range(self.batch)]
            ours[length] = self.timer(lambda a=asked, n=length: answered(self.chat, a, n, self.beams))
            settings = (self.length, self.batch, length, self.beams)
            bare[length] = self.timer(lambda s=settings: generated(self.bare, *s))
        rows = self.batch * self.beams
        gated = self.timer(lambda: gated_products(self.chat, rows, tokens - 1))
        more = tokens - 1
        times = ours[1], (ours[tokens] - ours[1]) / more, bare[1], (bare[tokens] - bare[1]) / more, gated / more
        return dict(zip(PARTS, times, strict=True))


def second_turn(chat: Chat, forgetful: Chat, words: int, number: int) -> tuple[float, float]:
    """Seconds to the first token of a second question: computed again, and with what was kept of the first turn."""
    first = question(number, words)
    one = dict(max_new_tokens=40, min_new_tokens=40)
    first.turns[0]["answer"] = chat.submit(first, one).text() or "nothing"
    asked = first.asked("and what is at the bottom?")
    seconds = []
    for each in (forgetful, chat):
        answer = each.submit(asked, dict(max_new_tokens=1))
        answer.text()
        seconds.append(answer.seconds_to_first)
    return seconds[0], seconds[1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Build, let all take turns, print."""
    args = parse_args(arguments)
    cfg = load_config(args.config, args.cfg_options)
    cases, numbers = [], iter(range(1, 10**9))
    for merged in (False, True):
        model = build_model(cfg, args.checkpoint, args.device)
        if merged and hasattr(model, "peft"):
            model = model.peft.merge_and_unload()
        pipeline = build_pipeline(cfg.chat_pipeline)
        chat = Chat(model, pipeline, engine=dict(cache_bytes=0, max_batch=max(args.batch) * max(args.beams)))
        cases += [Case(args, cfg, chat, merged, *each) for each in product(args.batch, args.beams)]
    keeping = Chat(model, pipeline)
    rounds: dict[str, list[dict[str, float]]] = {case.name: [] for case in cases}
    turns = []
    with progress_bar("rounds", args.rounds + 1) as bar:
        for number in range(args.rounds + 1):
            taken = {case.name: case.measure(numbers) for case in cases}
            turn = second_turn(keeping, chat, args.words, next(numbers))
            if number:  # the first round warms up
                for name, times in taken.items():
                    rounds[name].append(times)
                turns.append(turn)
            bar.update()
    report(rounds, turns, args.out)


def report(rounds: dict[str, list[dict[str, float]]], turns: list[tuple[float, float]], out: Path | None) -> None:
    """Prints medians, and writes them."""
    table, figures = Table(), {}
    for heading in ("", "first token", "bare", "per token", "bare", "gated", "over parts", "over bare"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, times in rounds.items():
        one = {part: median(each[part] for each in times) for part in PARTS}
        one["over_parts"] = median(each["token"] / (each["bare_token"] + each["gated_token"]) for each in times)
        one["over_bare"] = median(each["token"] / each["bare_token"] for each in times)
        cells = [f"{1e3 * one[part]:.2f}" for part in ("first", "bare_first", "token", "bare_token", "gated_token")]
        table.add_row(name, *cells, f"{one['over_parts']:.2f}", f"{one['over_bare']:.2f}")
        figures[name] = one
    again, kept = (median(each) for each in zip(*turns, strict=True))
    ratio = median(one / other for one, other in turns)
    figures["second_turn"] = {"again": again, "kept": kept, "ratio": ratio}
    second = Table("computed again", "kept", "times faster")
    second.add_row(f"{1e3 * again:.2f}", f"{1e3 * kept:.2f}", f"{ratio:.1f}")
    print_tables({"Answers, milliseconds": table, "First token of a second turn, milliseconds": second})
    if out is not None:
        out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    tool.run(main)
