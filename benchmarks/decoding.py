"""Time to the first token of an answer and per further token, beside the bare components of the model and a peer.

The bare components are transformers' generation with the language model alone, whose weights have the same memory
layout as ours, and the matrix products of the gated blocks. The peer generates as transformers does. All answers have
the same length and the same questions, each with an image; our times include tokenization and image preprocessing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, product

import torch
from mmengine.config import Config
from PIL import Image
from torch import nn

from mmgpt.apis import Chat, Conversation, build_model
from mmgpt.apis.precision import for_serving, use_column_major
from mmgpt.cli.config import flamingo_config
from mmgpt.datasets.instruction import build_pipeline
from mmgpt.inference.answer import Answer
from mmgpt.models import flamingo_of

from .components import GatedProducts, bare_language, image_encoder, resampler
from .peer import build_peer, peer_inputs, peers
from .rounds import Case, Decoding, Timer, Times, ratio

BEAMS, BATCHES = (1, 3), (1, 8)
LANGUAGE, ENCODER, RESAMPLER, GATED = "language model", "image encoder", "resampler", "gated blocks"
CACHED, UNCACHED = "second turn", "second turn, all computed again"
WORDS = "the red circle is at the top left and the blue square is at the right ".split()


@dataclass(frozen=True)
class Setting:
    """Setting of generation: whether LoRA is merged, number of beams, number of questions at once."""

    merged: bool
    beams: int = 1
    batch: int = 1

    @property
    def first(self) -> str:
        """Name of the row of the first token."""
        return "prefill" + self._lora

    @property
    def next(self) -> str:
        """Name of the row of the further tokens."""
        return f"decode, {self.beams} beam{'s' * (self.beams > 1)}, batch {self.batch}" + self._lora

    @property
    def _lora(self) -> str:
        return "" if self.merged else ", LoRA unmerged"


def rows(
    cfg: Config,
    checkpoint: str | None = None,
    device: str | None = None,
    tokens: int = 64,
    words: int = 60,
    beams: Sequence[int] = BEAMS,
    batches: Sequence[int] = BATCHES,
    merges: Sequence[bool] = (True, False),
) -> dict[str, Case]:
    """All cases by name: seconds to the first token, or per further token.

    Args:
        cfg, checkpoint, device: arguments of `build_model`.
        tokens: length of an answer in tokens.
        words: length of a question in words.
        merges: whether LoRA is merged, of each model to measure; each model takes three times its memory.
    """
    questions = [question(number, words, cfg.prepare_images.size) for number in range(max(batches))]
    cases, chats = {}, []
    for merged in merges:
        # All of the peer is in bfloat16 where the language model is.
        in_bfloat16 = flamingo_config(cfg).language.get("dtype") == "bfloat16"
        model = for_serving(build_model(cfg, checkpoint, device), "bfloat16" if in_bfloat16 else None, merged)
        scheduler = dict(max_batch=max(batches) * max(beams))
        chats = chats or [Chat(model, build_pipeline(cfg.chat_pipeline), scheduler=scheduler)]
        sides = Sides(cfg, Chat(model, build_pipeline(cfg.chat_pipeline), scheduler={**scheduler, "cache_bytes": 0}))
        cases |= sides.prefill(questions[0], Setting(merged).first)
        for beam_count, batch in product(beams, batches):
            setting = Setting(merged, beam_count, batch)
            cases |= sides.decoding(questions[:batch], tokens, setting)
        chats.append(sides.chat)
    return cases | second_turn(chats[0], chats[1], words, cfg.prepare_images.size)


def ratios(times: Times) -> dict[str, float]:
    """Ratios of a chat's times to those of the bare components and of the peer, if measured; below 1, it is faster.

    Unless the name says otherwise they are of one beam, one question and merged LoRA, as in a chat.
    """

    def over_parts(row: str, *names: str) -> float:
        return ratio(times, row, *(component(row, name) for name in names))

    result = {}
    for merged, beams, batch in product((True, False), BEAMS, BATCHES):
        setting, lora = Setting(merged, beams, batch), "" if merged else "_unmerged"
        if setting.next in times:
            name = "decode" + f"_beam{beams}" * (beams > 1) + f"_batch{batch}" * (batch > 1) + lora
            result[f"{name}_over_parts"] = over_parts(setting.next, LANGUAGE, GATED)
            result[f"{name}_over_peer"] = ratio(times, setting.next, peers(setting.next))
        if setting.first in times:
            result[f"prefill{lora}_over_parts"] = over_parts(setting.first, LANGUAGE, ENCODER, RESAMPLER, GATED)
            result[f"prefill{lora}_over_peer"] = ratio(times, setting.first, peers(setting.first))
    if CACHED in times:
        result["second_turn_over_again"] = ratio(times, CACHED, UNCACHED)
    return result


def component(row: str, name: str) -> str:
    """Name of the row of a bare component of another row."""
    return f"{row}: {name}"


def question(number: int, words: int, side: int) -> Conversation:
    """A question whose text and image are unique to its number."""
    text = f"{number}: " + " ".join((WORDS * words)[:words])
    color = number % 256, number // 256 % 256, 0
    return Conversation().with_question(text, [Image.new("RGB", (side, side), color)])


class Sides:
    """The sides of the comparison: a chat, its bare language model, and its peer.

    Args:
        cfg: the config.
        chat: chat of a model in evaluation mode, without a prefix cache.
    """

    def __init__(self, cfg: Config, chat: Chat):
        self.chat, self.flamingo = chat, flamingo_of(chat.model)
        self.peer = build_peer(chat.model, cfg)
        self.bare = bare_language(chat.model, cfg, lora=self.flamingo is not chat.model)
        use_column_major(self.bare)
        self.timer = Timer(self.bare.device, process_time=True)

    def prefill(self, conversation: Conversation, row: str) -> dict[str, Case]:
        """Cases of the time from a question to the first token of its answer."""
        ids, mask, pixels, *_ = self.chat.prepare(conversation).values()
        model, bare = self.chat.model, self.bare
        with torch.inference_mode():
            features = image_encoder(model, pixels[0])
            products = GatedProducts(model, *ids.shape, len(self.flamingo.perceiver.latents))
        components = {
            LANGUAGE: lambda: bare(ids, attention_mask=mask, use_cache=True, logits_to_keep=1),
            ENCODER: lambda: image_encoder(model, pixels[0]),
            RESAMPLER: lambda: resampler(model, features),
            GATED: products,
        }
        works = {
            row: lambda: answer(self.chat, [conversation], 1),
            peers(row): self._peer_answers([conversation], 1, 1),
            **{component(row, name): work for name, work in components.items()},
        }
        return {name: torch.inference_mode()(partial(self.timer, work)) for name, work in works.items()}

    def decoding(self, questions: Sequence[Conversation], tokens: int, setting: Setting) -> dict[str, Case]:
        """Cases of the time per token after the first, of answers of `tokens` tokens to simultaneous questions."""
        beams, row = setting.beams, setting.next
        text = {key: value for key, value in self._batch(questions).items() if key in ("input_ids", "attention_mask")}
        products = GatedProducts(
            self.chat.model, len(questions) * beams, 1, len(self.flamingo.perceiver.latents), cached=True
        )
        works = {
            row: (self.chat.flamingo.language, lambda: answer(self.chat, questions, tokens, beams)),
            component(row, LANGUAGE): (self.bare, lambda: generate(self.bare, text, tokens, beams)),
            peers(row): (self.peer, self._peer_answers(questions, tokens, beams)),
        }
        cases = {
            name: Decoding(model, self.timer, work, tokens, reads_all_weights=model is not self.peer)
            for name, (model, work) in works.items()
        }

        @torch.inference_mode()
        def gated_seconds() -> float:
            seconds = 0.0
            for _ in range(tokens):
                # A decoding step reads the gated blocks' weights from memory, since other layers evict them from the
                # caches: reading all other weights has the same effect.
                for weight in self.bare.parameters():
                    weight.sum()
                seconds += self.timer(products)
            return seconds / tokens

        return {**cases, component(row, GATED): gated_seconds}

    def _batch(self, questions: Sequence[Conversation]) -> dict:
        batch = self.chat.batch(questions, self.chat.pipeline, "left")
        return {key: value for key, value in batch.items() if key != "labels"}

    def _peer_answers(self, questions: Sequence[Conversation], tokens: int, beams: int) -> Callable[[], None]:
        inputs = peer_inputs(self.chat.model, self._batch(questions))
        return lambda: generate(self.peer, inputs, tokens, beams)


def answer(chat: Chat, questions: Sequence[Conversation], tokens: int, beams: int = 1) -> list[Answer]:
    """Answers of `tokens` tokens to questions that arrive at once, after their end."""
    with chat.scheduler.paused():
        answers = [chat.submit(question, _length(tokens, beams)) for question in questions]
    for each in answers:
        each.text()
    return answers


@torch.inference_mode()
def generate(model: nn.Module, inputs: dict, tokens: int, beams: int) -> None:
    """Generate `tokens` tokens with transformers."""
    model.generate(**inputs, **_length(tokens, beams), do_sample=False)


def second_turn(cached: Chat, uncached: Chat, words: int, side: int) -> dict[str, Case]:
    """Cases of the time to the first token of a second turn, with and without the prefix cache."""
    numbers, timer = count(10**6), Timer(next(cached.model.parameters()).device, process_time=True)

    def seconds(chat: Chat) -> float:
        first = question(next(numbers), words, side)
        chat.submit(first, _length(1, 1)).text()
        first.turns[0]["answer"] = " ".join(WORDS)
        second = first.with_question("and what is at the bottom?")
        return timer(lambda: chat.submit(second, _length(1, 1)).text())

    return {CACHED: lambda: seconds(cached), UNCACHED: lambda: seconds(uncached)}


def _length(tokens: int, beams: int) -> dict:
    return dict(max_new_tokens=tokens, min_new_tokens=tokens, num_beams=beams)
