"""Training steps (forward and backward), compared with their bare components and the peer's on the same samples.

In each row the trainable parameters are those of the config. No row includes an optimizer step.
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
from mmgpt.models import flamingo_of
from mmgpt.models.memory.compile import compile_layers, compiled
from mmgpt.models.packing import packed_inputs
from mmgpt.models.transformers_names import set_activation_checkpointing

from .components import GatedProducts, bare_language, forward_backward, image_encoder, resampler
from .peer import build_peer, peer_inputs, peers
from .rounds import Timer, Times, peak_bytes, ratio
from .samples import DrawnSamples, batches

COMPONENTS = (
    "image encoder",
    "resampler",
    "gated blocks",
    "language model, mixed rows",
    "language model, packed rows",
)
ENCODER, RESAMPLER, GATED, LANGUAGE_MIXED, LANGUAGE_PACKED = (f"joint step: {component}" for component in COMPONENTS)
VISUAL, LANGUAGE = "visual step", "language step"
MIXED, GROUPED, PACKED = (f"joint step, {rows}" for rows in ("mixed", "grouped", "packed"))
COMPILED = f"{PACKED}, compiled"
# Names of our rows in the ratios.
STEPS = {
    "joint_step": PACKED,
    "joint_step_mixed": MIXED,
    "joint_step_grouped": GROUPED,
    "visual_step": VISUAL,
    "language_step": LANGUAGE,
}


def checkpointing(row: str, on: bool = True, between: str = ", ") -> str:
    """Name of a row with or without activation checkpointing."""
    return row + f"{between}checkpointing" * on


# Rows that are compared are measured one after another, since the load of a machine changes within minutes.
ORDER = (
    *(PACKED, COMPILED, GATED, ENCODER, RESAMPLER, LANGUAGE_PACKED, LANGUAGE_MIXED, peers(MIXED)),
    *(row for name in (VISUAL, LANGUAGE, MIXED, GROUPED) for row in (name, peers(name))),
    checkpointing(PACKED),
    *(row for name in map(checkpointing, (MIXED, GROUPED, VISUAL, LANGUAGE)) for row in (name, peers(name))),
)


@dataclass(frozen=True)
class Row:
    """Case of training: called, it returns its seconds.

    Attributes:
        model: model whose gradients are freed after each batch, as in training.
        work: function that is timed with each of `inputs`.
        inputs: inputs of one batch each, on the model's device.
        supervised: number of supervised tokens in all of them.
        before: function that is called before, untimed.
    """

    model: nn.Module
    work: Callable[[object], object]
    inputs: Sequence[object]
    supervised: int
    before: Callable[[], object] = tuple

    def __call__(self) -> float:
        timer = Timer(self._device, process_time=True)
        return sum(self._each(timer))

    def figures(self) -> dict[str, float]:
        """Figures that do not depend on the load of the machine.

        learned: number of supervised tokens. peak_bytes: peak memory of a batch without its inputs and the weights.
        operations: multiplications and additions in matrix products (on a CPU without those of attention).
        """
        with FlopCounterMode(display=False) as counter:
            sum(self._each(lambda work: work() or 0))
        weights = [*self.model.parameters(), *self.model.buffers()]
        tensors = [leaf for leaf in tree_leaves(list(self.inputs)) if isinstance(leaf, Tensor)]
        peaks = self._each(lambda work: peak_bytes(work, [*weights, *tensors], self._device))
        return dict(learned=self.supervised, peak_bytes=max(peaks), operations=counter.get_total_flops())

    def _each(self, measure: Callable[[Callable[[], object]], float]) -> Iterator[float]:
        """The result of a measurement of the work with each of the inputs."""
        self.before()
        for inputs in self.inputs:
            yield measure(partial(self.work, inputs))
            self.model.zero_grad(set_to_none=True)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device


def rows(model: nn.Module, cfg: Config, drawn: Sequence[DrawnSamples], size: int, row_length: int) -> dict[str, Row]:
    """All cases by name.

    Args:
        model: model of the config; it is left in training mode.
        cfg: the config; if it has `compile`, packed rows are also measured with compiled layers.
        drawn: the visual samples, and as many language samples.
        size: number of samples of each source in a batch.
        row_length: length of packed rows.

    Raises:
        ValueError: the variants of the joint step have different numbers of supervised tokens.
    """
    model.train()

    def preprocessed(datasets: Sequence[DrawnSamples], **options) -> list[dict]:
        return [model.data_preprocessor(batch, training=True) for batch in batches(datasets, size, **options)]

    visual, language = drawn
    mixed, packed = preprocessed(drawn), preprocessed(drawn, row_length=row_length)
    singles = {VISUAL: preprocessed([visual]), LANGUAGE: preprocessed([language])}
    steps = {**singles, MIXED: mixed, GROUPED: preprocessed(drawn, grouped=True), PACKED: packed}
    counts = {name: _supervised(steps[name]) for name in (MIXED, GROUPED, PACKED)}
    if len(set(counts.values())) > 1:
        raise ValueError(f"the same samples, but different numbers of supervised tokens: {counts}")
    images = [batch["pixels"][:, 0] for batch in singles[VISUAL]]
    own_steps = {
        checkpointing(name, on): Row(
            model, partial(own_step, model), inputs, _supervised(inputs), partial(flamingo_of(model).checkpoint, on)
        )
        for name, inputs in steps.items()
        for on in (False, True)
    }
    cases = {
        **own_steps,
        **_components(model, counts[MIXED], images, visual),
        **_language_alone(model, cfg, mixed, packed),
        **_peer_steps(model, cfg, {name: step for name, step in steps.items() if name != PACKED}),
    }
    if cfg.get("compile"):
        compile_layers(model, cfg.compile)
        # The figures are left out: operations and tensors inside compiled graphs cannot be counted.
        cases[COMPILED] = replace(cases[PACKED], work=compiled(partial(own_step, model))).__call__
    return {name: cases[name] for name in ORDER if name in cases} | cases


def ratios(times: Times) -> dict[str, float]:
    """Ratios of our steps to their bare components and to the peer; below 1, ours are faster.

    The joint step is the packed one. Its components are image encoder, resampler and language model. In `parts`, each
    sample is a row of the language model, as in training without packing. The other two have packed rows:
    `packed_parts` with the matrix products of the gated blocks, `packed_parts_without_gated` without them. The bare
    language model computes the logits of all tokens, as transformers does.

    The peer cannot pack, so that our packed rows are compared with its mixed rows. It also encodes an empty image for
    each text without images, and its gated blocks compute in the language step, too.
    """
    images = ENCODER, RESAMPLER
    result = {
        "joint_step_over_parts": ratio(times, PACKED, *images, LANGUAGE_MIXED),
        "joint_step_over_packed_parts": ratio(times, PACKED, *images, GATED, LANGUAGE_PACKED),
        "joint_step_over_packed_parts_without_gated": ratio(times, PACKED, *images, LANGUAGE_PACKED),
    }
    if COMPILED in times:
        result["compiled_step_over_joint_step"] = ratio(times, COMPILED, PACKED)
    for name, row in STEPS.items():
        for on in (False, True):
            peer = peers(checkpointing(MIXED if row == PACKED else row, on))
            result[f"{checkpointing(name, on, '_')}_over_peer"] = ratio(times, checkpointing(row, on), peer)
    return result


def own_step(model: nn.Module, batch: dict) -> None:
    """Forward and backward pass of a batch, as in training."""
    loss, _ = model.parse_losses(model(**batch, mode="loss"))
    loss.backward()


def transformers_step(model: nn.Module, inputs: dict[str, Tensor]) -> None:
    """Forward and backward pass of a transformers model, which computes its loss itself."""
    model(**inputs, use_cache=False).loss.backward()


def text_of(batch: dict) -> dict[str, Tensor]:
    """The arguments of a language model from a batch."""
    return {key: batch[key] for key in ("input_ids", "attention_mask", "labels")}


def _components(model: nn.Module, supervised: int, images: Sequence[Tensor], visual: DrawnSamples) -> dict[str, Row]:
    """Image encoder and resampler for all images, and gated blocks for the tokens that have images."""
    with torch.no_grad():
        features = [image_encoder(model, batch) for batch in images]
    count, latents = len(images[0]), len(flamingo_of(model).perceiver.latents)
    tokens = sum(visual.text_length(i) for i in range(len(visual)))
    gated = GatedProducts(model, count, ceil(tokens / len(visual)), latents)
    no_checkpointing = partial(flamingo_of(model).checkpoint, False)
    return {
        name: Row(model, work, inputs, supervised, no_checkpointing)
        for name, work, inputs in (
            (ENCODER, lambda batch: forward_backward(lambda: image_encoder(model, batch)), images),
            (RESAMPLER, lambda batch: forward_backward(lambda: resampler(model, batch)), features),
            (GATED, forward_backward, [gated] * len(images)),
        )
    }


def _language_alone(model: nn.Module, cfg: Config, mixed: list[dict], packed: list[dict]) -> dict[str, Row]:
    """The bare language model with LoRA and transformers' loss."""
    bare = bare_language(model, cfg, lora="lora" in cfg).train()
    language = flamingo_of(model).language.model
    inputs = {
        LANGUAGE_MIXED: [text_of(batch) for batch in mixed],
        LANGUAGE_PACKED: [text_of(batch) | packed_inputs(language, batch["sample_ids"]) for batch in packed],
    }
    supervised = _supervised(mixed)
    return {name: Row(bare, partial(transformers_step, bare), rows, supervised) for name, rows in inputs.items()}


def _peer_steps(model: nn.Module, cfg: Config, steps: dict[str, list[dict]]) -> dict[str, Row]:
    """The peer's steps, without and with transformers' activation checkpointing."""
    peer = build_peer(model, cfg).train()

    return {
        peers(checkpointing(name, on)): Row(
            peer,
            partial(transformers_step, peer),
            [peer_inputs(model, batch) for batch in batches],
            _supervised(batches),
            before,
        )
        for name, batches in steps.items()
        for on, before in ((on, partial(set_activation_checkpointing, peer, on)) for on in (False, True))
    }


def _supervised(batches: Sequence[dict]) -> int:
    """Number of supervised tokens in several batches."""
    return sum(sum(count_label_tokens(batch).values()) for batch in batches)
