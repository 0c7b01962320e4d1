"""Answers of a chat, beside the bare parts of its model and beside the peer: the first token, and each that follows.

The bare parts of an answer are the language model's own generation by transformers, its weights laid out as ours, and
the matrix products of the gated blocks. The peer is as transformers makes it. All answers are to the same questions,
each with an image, and equally long; ours begin with text and picture as they are, the others' with tokens and pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count, product

import torch
from mmengine.config import Config
from PIL import Image
from torch import nn

from mmgpt.apis import Chat, Conversation, build_model
from mmgpt.apis.precision import for_serving, use_column_major
from mmgpt.datasets.instruction import build_pipeline
from mmgpt.models import flamingo_of

from .parts import GatedProducts, bare_language, resampler, tower
from .peer import build_peer, peer_inputs, peers
from .rounds import Case, Decoding, Timer, Times, ratio

BEAMS, BATCHES = (1, 3), (1, 8)
LANGUAGE, TOWER, RESAMPLER, GATED = "language model", "image tower", "resampler", "gated blocks"
KEPT, AGAIN = "second turn", "second turn, all computed again"
WORDS = "the red circle is at the top left and the blue square is at the right ".split()


@dataclass(frozen=True)
class Setting:
    """How answers are made: with so many beams, to so many questions at once, by a model with LoRA merged or not."""

    merged: bool
    beams: int = 1
    batch: int = 1

    @property
    def first(self) -> str:
        """The row of the first token."""
        return "prefill" + self._lora

    @property
    def next(self) -> str:
        """The row of the tokens that follow."""
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
    """Everything that is measured, by name: seconds to the first token, or for each that follows.

    Args:
        cfg, checkpoint, device: as for `build_model`.
        tokens: length of an answer.
        words: length of a question.
        merges: models with LoRA merged, unmerged, or both; each stands in memory three times.
    """
    asked = [question(number, words, cfg.image_size) for number in range(max(batches))]
    made, chats = {}, []
    for merged in merges:
        model = for_serving(build_model(cfg, checkpoint, device), merge=merged)
        room = dict(max_batch=max(batches) * max(beams))
        chats = chats or [Chat(model, build_pipeline(cfg.chat_pipeline), scheduler=room)]
        sides = Sides(cfg, Chat(model, build_pipeline(cfg.chat_pipeline), scheduler={**room, "cache_bytes": 0}))
        made |= sides.prefill(asked[0], Setting(merged).first)
        for each in product(beams, batches):
            setting = Setting(merged, *each)
            made |= sides.decoding(asked[: setting.batch], tokens, setting)
        chats.append(sides.chat)
    return made | second_turn(chats[0], chats[1], words, cfg.image_size)


def ratios(times: Times) -> dict[str, float]:
    """How far a chat is from the limit and from the peer, as far as it was measured; below 1, it is faster.

    With one beam, one question and LoRA merged, as a chat has it, unless the name says otherwise.
    """
    found = {}
    for each in (Setting(*some) for some in product((True, False), BEAMS, BATCHES)):
        lora = "" if each.merged else "_unmerged"
        if each.next in times:
            name = "decode" + f"_beam{each.beams}" * (each.beams > 1) + f"_batch{each.batch}" * (each.batch > 1) + lora
            found[f"{name}_over_parts"] = _over_parts(times, each.next, LANGUAGE, GATED)
            found[f"{name}_over_peer"] = ratio(times, each.next, peers(each.next))
        if each.first in times:
            parts = LANGUAGE, TOWER, RESAMPLER, GATED
            found[f"prefill{lora}_over_parts"] = _over_parts(times, each.first, *parts)
            found[f"prefill{lora}_over_peer"] = ratio(times, each.first, peers(each.first))
    if KEPT in times:
        found["second_turn_over_again"] = ratio(times, KEPT, AGAIN)
    return found


def part(row: str, name: str) -> str:
    """The row of a bare part of what another row measures."""
    return f"{row}: {name}"


def question(number: int, words: int, side: int) -> Conversation:
    """A question with an image that no other number has."""
    text = f"{number}: " + " ".join((WORDS * words)[:words])
    colour = number % 256, number // 256 % 256, 0
    return Conversation().with_question(text, [Image.new("RGB", (side, side), colour)])


class Sides:
    """A chat, its language model alone, and its peer.

    Args:
        cfg: the config.
        chat: of a model in evaluation mode; it keeps nothing of a question for the next.
    """

    def __init__(self, cfg: Config, chat: Chat):
        self.chat, self.flamingo = chat, flamingo_of(chat.model)
        self.peer = build_peer(chat.model, cfg)
        self.bare = bare_language(chat.model, cfg, lora=self.flamingo is not chat.model)
        use_column_major(self.bare)
        self.timer = Timer(self.bare.device, own=True)

    def prefill(self, asked: Conversation, row: str) -> dict[str, Case]:
        """To the first token of an answer, from the question on."""
        ids, mask, pixels, _ = self.chat.prepare(asked).values()
        model, bare = self.chat.model, self.bare
        with torch.inference_mode():
            features = tower(model, pixels[0])
            products = GatedProducts(model, *ids.shape, len(self.flamingo.perceiver.latents))
        parts = {
            LANGUAGE: lambda: bare(ids, attention_mask=mask, use_cache=True, logits_to_keep=1),
            TOWER: lambda: tower(model, pixels[0]),
            RESAMPLER: lambda: resampler(model, features),
            GATED: products,
        }
        answers = {row: lambda: self.answered([asked], 1, 1), peers(row): self._peer_answers([asked], 1, 1)}
        work = answers | {part(row, name): each for name, each in parts.items()}
        return {name: self._timed(each) for name, each in work.items()}

    def decoding(self, asked: Sequence[Conversation], tokens: int, setting: Setting) -> dict[str, Case]:
        """For each token after the first, of answers of so many to questions that come at once."""
        beams, row = setting.beams, setting.next
        text = {key: value for key, value in self._batch(asked).items() if key in ("input_ids", "attention_mask")}
        products = GatedProducts(
            self.chat.model, len(asked) * beams, 1, len(self.flamingo.perceiver.latents), cached=True
        )
        generate = {
            row: (self.chat.flamingo.language, lambda: self.answered(asked, tokens, beams)),
            part(row, LANGUAGE): (self.bare, lambda: generated(self.bare, text, tokens, beams)),
            peers(row): (self.peer, self._peer_answers(asked, tokens, beams)),
        }
        cases = {
            name: Decoding(model, self.timer, work, tokens, reads=model is not self.peer)
            for name, (model, work) in generate.items()
        }
        return {**cases, part(row, GATED): lambda: self._gated_seconds(products, tokens)}

    def answered(self, asked: Sequence[Conversation], tokens: int, beams: int) -> None:
        """Waits for answers of so many tokens to questions that come at once."""
        with self.chat.scheduler.paused():
            answers = [self.chat.submit(each, _length(tokens, beams)) for each in asked]
        for answer in answers:
            answer.text()

    @torch.inference_mode()
    def _gated_seconds(self, products: GatedProducts, tokens: int) -> float:
        """Of the gated blocks' products for a token; their weights come from memory, as after the other layers'."""
        seconds = 0.0
        for _ in range(tokens):
            for weight in self.bare.parameters():
                weight.sum()
            seconds += self.timer(products)
        return seconds / tokens

    def _batch(self, asked: Sequence[Conversation]) -> dict:
        batch = self.chat.batch(asked, self.chat.pipeline, "left")
        return {key: value for key, value in batch.items() if key != "labels"}

    def _peer_answers(self, asked: Sequence[Conversation], tokens: int, beams: int) -> Callable[[], None]:
        inputs = peer_inputs(self.chat.model, self._batch(asked))
        return lambda: generated(self.peer, inputs, tokens, beams)

    def _timed(self, work: Callable[[], object]) -> Case:
        return torch.inference_mode()(lambda: self.timer(work))


@torch.inference_mode()
def generated(model: nn.Module, inputs: dict, tokens: int, beams: int) -> None:
    """Waits for transformers' generate of so many tokens."""
    model.generate(**inputs, **_length(tokens, beams), do_sample=False)


def second_turn(keeping: Chat, forgetful: Chat, words: int, side: int) -> dict[str, Case]:
    """To the first token of a second question: all computed again, and with what was kept of the first turn."""
    numbers, timer = count(10**6), Timer(next(keeping.model.parameters()).device, own=True)

    def seconds(chat: Chat) -> float:
        first = question(next(numbers), words, side)
        chat.submit(first, _length(1, 1)).text()
        first.turns[0]["answer"] = " ".join(WORDS)
        asked = first.with_question("and what is at the bottom?")
        return timer(lambda: chat.submit(asked, _length(1, 1)).text())

    return {KEPT: lambda: seconds(keeping), AGAIN: lambda: seconds(forgetful)}


def _length(tokens: int, beams: int) -> dict:
    return dict(max_new_tokens=tokens, min_new_tokens=tokens, num_beams=beams)


def _over_parts(times: Times, row: str, *names: str) -> float:
    return ratio(times, row, *(part(row, name) for name in names))
