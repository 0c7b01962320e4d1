"""Steps of training (forward and backward), beside their bare parts and the peer's, on the same samples.

Each row trains what the config trains and nothing else; there is no step of an optimizer in any.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from mmgpt.datasets.collate import count_label_tokens
from mmgpt.models.memory.compile import compile_layers, compiled
from mmgpt.models.packing import packed_inputs
from mmgpt.models.transformers_names import set_activation_checkpointing

from .parts import GatedProducts, bare_language, flamingo_of, learn, resampler, tower
from .peer import build_peer, peer_inputs, peers
from .rounds import Timer, Times, peak_bytes, ratio
from .samples import DrawnSamples, batches

PARTS = ("image tower", "resampler", "gated blocks", "language model, mixed rows", "language model, packed rows")
TOWER, RESAMPLER, GATED, LANGUAGE_MIXED, LANGUAGE_PACKED = (f"joint step: {part}" for part in PARTS)
VISUAL, LANGUAGE = "visual step", "language step"
MIXED, GROUPED, PACKED = (f"joint step, {rows}" for rows in ("mixed", "grouped", "packed"))
COMPILED = f"{PACKED}, compiled"
# Names of our rows in ratios.
STEPS = {
    "joint_step": PACKED,
    "joint_step_mixed": MIXED,
    "joint_step_grouped": GROUPED,
    "visual_step": VISUAL,
    "language_step": LANGUAGE,
}


def checkpointing(row: str, on: bool = True, between: str = ", ") -> str:
    """The name of a row with checkpointing, or without."""
    return row + f"{between}checkpointing" * on


# What is compared is measured one after the other: a busy machine is not equally busy for minutes.
COMPARED = (
    *(PACKED, COMPILED, GATED, TOWER, RESAMPLER, LANGUAGE_PACKED, LANGUAGE_MIXED, peers(MIXED)),
    *(each for name in (VISUAL, LANGUAGE, MIXED, GROUPED) for each in (name, peers(name))),
    checkpointing(PACKED),
    *(each for name in map(checkpointing, (MIXED, GROUPED, VISUAL, LANGUAGE)) for each in (name, peers(name))),
)


@dataclass(frozen=True)
class Row:
    """One thing that is measured; called, it gives its seconds.

    Attributes:
        model: its gradients are freed after each batch, as in training.
        work: what is done with each of `inputs`.
        inputs: of one batch each, on the model's device.
        learned: number of tokens that are learned in all of them.
        before: called before, and not timed.
    """

    model: nn.Module
    work: Callable[[object], object]
    inputs: Sequence[object]
    learned: int
    before: Callable[[], object] = tuple

    def __call__(self) -> float:
        timer = Timer(self._device, own=True)
        return sum(self._each(timer))

    def figures(self) -> dict[str, float]:
        """What does not depend on how busy the machine is.

        learned: the number of learned tokens. peak_bytes: the most that live at once in a batch, beside its inputs and
        the weights. operations: multiplications and additions of matrix products (on a CPU without attention's own).
        """
        with FlopCounterMode(display=False) as counter:
            sum(self._each(lambda work: work() or 0))
        weights = [*self.model.parameters(), *self.model.buffers()]
        given = [each for each in tree_leaves(list(self.inputs)) if isinstance(each, Tensor)]
        peaks = self._each(lambda work: peak_bytes(work, [*weights, *given], self._device))
        return dict(learned=self.learned, peak_bytes=max(peaks), operations=counter.get_total_flops())

    def _each(self, measured: Callable[[Callable[[], object]], float]) -> Iterator[float]:
        """What is measured of the work with each of the inputs."""
        self.before()
        for given in self.inputs:
            yield measured(partial(self.work, given))
            self.model.zero_grad(set_to_none=True)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device


def rows(model: nn.Module, cfg: Config, drawn: Sequence[DrawnSamples], size: int, row_length: int) -> dict[str, Row]:
    """Everything that is measured, by name.

    Args:
        model: of the config; it is left in training mode.
        cfg: the config; where it has `compile`, packed rows are measured with compiled layers, too.
        drawn: the visual samples, and as many language ones.
        size: number of samples of each kind in a batch.
        row_length: of packed rows.

    Raises:
        ValueError: the rows of the joint step do not learn equally many tokens.
    """
    model.train()

    def made(parts: Sequence[DrawnSamples], **how) -> list[dict]:
        return [model.data_preprocessor(batch, training=True) for batch in batches(parts, size, **how)]

    visual, language = drawn
    mixed, packed = made(drawn), made(drawn, row_length=row_length)
    singles = {VISUAL: made([visual]), LANGUAGE: made([language])}
    steps = {**singles, MIXED: mixed, GROUPED: made(drawn, grouped=True), PACKED: packed}
    counts = {name: _learned(steps[name]) for name in (MIXED, GROUPED, PACKED)}
    if len(set(counts.values())) > 1:
        raise ValueError(f"the same samples, but other learned tokens: {counts}")
    images = [batch["pixels"][:, 0] for batch in singles[VISUAL]]
    found = {
        **_own_steps(model, steps),
        **_parts(model, counts[MIXED], images, visual),
        **_language_alone(model, cfg, mixed, packed),
        **_peer_steps(model, cfg, {name: some for name, some in steps.items() if name != PACKED}),
    }
    if cfg.get("compile"):
        compile_layers(model, cfg.compile)
        # Without its figures: operations and tensors within compiled graphs are not seen.
        found[COMPILED] = replace(found[PACKED], work=compiled(partial(own_step, model))).__call__
    return {name: found[name] for name in COMPARED if name in found} | found


def ratios(times: Times) -> dict[str, float]:
    """How far our steps are from their parts and from the peer; below 1, ours are faster.

    The joint step is the packed one. Its parts are tower, resampler and language model; in `parts`, each sample is a
    row of the language model, as one trains without packing. The other two have its packed rows: `packed_parts` with
    the gated blocks' own products, `packed_parts_without_gated` as if a model that reads images needed none. The
    language model makes the logits of all tokens, as transformers does.

    The peer cannot pack: beside our packed rows, its rows are the mixed ones. It also looks at an empty picture for
    each text without one, and in the language step its gated blocks compute.
    """
    images = TOWER, RESAMPLER
    found = {
        "joint_step_over_parts": ratio(times, PACKED, *images, LANGUAGE_MIXED),
        "joint_step_over_packed_parts": ratio(times, PACKED, *images, GATED, LANGUAGE_PACKED),
        "joint_step_over_packed_parts_without_gated": ratio(times, PACKED, *images, LANGUAGE_PACKED),
    }
    if COMPILED in times:
        found["compiled_step_over_joint_step"] = ratio(times, COMPILED, PACKED)
    for name, row in STEPS.items():
        for on in (False, True):
            peer = peers(checkpointing(MIXED if row == PACKED else row, on))
            found[f"{checkpointing(name, on, '_')}_over_peer"] = ratio(times, checkpointing(row, on), peer)
    return found


def own_step(model: nn.Module, batch: dict) -> None:
    """Losses and gradients of a batch, as in training."""
    loss, _ = model.parse_losses(model(**batch, mode="loss"))
    loss.backward()


def learn_text(model: nn.Module, inputs: dict[str, Tensor]) -> None:
    """The same of a model of transformers, which makes its loss itself."""
    model(**inputs, use_cache=False).loss.backward()


def text_of(batch: dict) -> dict[str, Tensor]:
    """What a language model is given of a batch."""
    return {key: batch[key] for key in ("input_ids", "attention_mask", "labels")}


def _own_steps(model: nn.Module, steps: dict[str, list[dict]]) -> dict[str, Row]:
    """Our own rows, keeping all activations and with checkpointing."""

    return {
        checkpointing(name, on): Row(
            model, partial(own_step, model), some, _learned(some), partial(flamingo_of(model).checkpoint, on)
        )
        for name, some in steps.items()
        for on in (False, True)
    }


def _parts(model: nn.Module, learned: int, images: Sequence[Tensor], visual: DrawnSamples) -> dict[str, Row]:
    """Tower and resampler for all images, and gated blocks for the tokens that have an image to read."""
    with torch.no_grad():
        features = [tower(model, some) for some in images]
    count, latents = len(images[0]), len(flamingo_of(model).perceiver.latents)
    tokens = sum(visual.text_length(i) for i in range(len(visual)))
    gated = GatedProducts(model, count, ceil(tokens / len(visual)), latents)
    keep = partial(flamingo_of(model).checkpoint, False)
    return {
        TOWER: Row(model, lambda some: learn(lambda: tower(model, some)), images, learned, keep),
        RESAMPLER: Row(model, lambda some: learn(lambda: resampler(model, some)), features, learned, keep),
        GATED: Row(model, learn, [gated] * len(images), learned, keep),
    }


def _language_alone(model: nn.Module, cfg: Config, mixed: list[dict], packed: list[dict]) -> dict[str, Row]:
    """The language model with its LoRA and transformers' own loss."""
    bare = bare_language(model, cfg, lora="lora" in cfg).train()
    own = flamingo_of(model).language.model
    inputs = {
        LANGUAGE_MIXED: [text_of(batch) for batch in mixed],
        LANGUAGE_PACKED: [text_of(batch) | packed_inputs(own, batch["samples"]) for batch in packed],
    }
    return {name: Row(bare, partial(learn_text, bare), some, _learned(mixed)) for name, some in inputs.items()}


def _peer_steps(model: nn.Module, cfg: Config, steps: dict[str, list[dict]]) -> dict[str, Row]:
    """The peer's rows, keeping all activations and with checkpointing, which is transformers' own."""
    peer = build_peer(model, cfg).train()

    return {
        peers(checkpointing(name, on)): Row(
            peer, partial(learn_text, peer), [peer_inputs(model, each) for each in some], _learned(some), before
        )
        for name, some in steps.items()
        for on, before in ((on, partial(set_activation_checkpointing, peer, on)) for on in (False, True))
    }


def _learned(some: Sequence[dict]) -> int:
    return sum(sum(count_label_tokens(batch).values()) for batch in some)
