"""Logits and the gated blocks' inputs and outputs against the published implementation, with and without LoRA.

A row with another number of images than of `<image>` tokens is refused here; the published code computes something.
"""

import pytest
import torch

from mmgpt.models import flamingo_of
from tests.helpers.parity_models import (
    ACTIVATIONS,
    assert_close,
    batch_of,
    built,
    expected_arrays,
    expected_json,
    image_counts,
    image_tokens,
)

CASES = expected_json("logits_cases")
MATCHED = [name for name, case in CASES.items() if image_counts(case) == image_tokens(case)]
REFUSED = [name for name in CASES if name not in MATCHED]
KINDS = ["base", "lora"]


def has_surplus(case: dict) -> bool:
    """Whether every row has a place for an image, and none has more places than images."""
    return all(0 < tokens <= images for tokens, images in zip(image_tokens(case), image_counts(case), strict=True))


# A surplus image is not read by any token: without it the row gives the same.
SURPLUS = [name for name in REFUSED if has_surplus(CASES[name])]


def model_for(kind: str, case: dict):
    """'attend_previous' of the published code is our rule 'latest'."""
    return built(kind, "latest" if case["attend_previous"] else "next")


def assert_logits(logits, kind: str, name: str) -> None:
    """Compares where there is text; what stands at padding has no meaning."""
    text = torch.tensor(CASES[name]["attention_mask"]) == 1
    assert_close(logits[text], expected_arrays(f"logits_{kind}")[name][text], ACTIVATIONS, name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MATCHED)
@torch.no_grad()
def test_logits(kind, name):
    assert_logits(model_for(kind, CASES[name])(**batch_of(CASES[name])), kind, name)


@pytest.mark.parametrize("name", REFUSED)
def test_other_numbers_of_images_than_of_places_are_refused(name):
    case, tokens, images = CASES[name], image_tokens(CASES[name]), image_counts(CASES[name])
    row = next(i for i in range(len(tokens)) if tokens[i] != images[i])
    message = f"row {row} has {tokens[row]} `<image>` tokens and {images[row]} images"
    for call in (built("base"), built("base").generate, built("lora").generate):
        with pytest.raises(ValueError, match=message):
            call(**batch_of(case))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SURPLUS)
@torch.no_grad()
def test_logits_without_the_surplus_images(kind, name):
    batch = batch_of(CASES[name]) | {"image_counts": torch.tensor(image_tokens(CASES[name]))}
    assert_logits(model_for(kind, CASES[name])(**batch), kind, name)


def gated_values(flamingo, batch: dict) -> dict[str, torch.Tensor]:
    """Input and output of each gated block, and its cross-attention before the gate, by the reference's keys."""
    values, handles = {}, []

    def note(layer: int, what: str):
        def hook(_module, inputs, output):
            values[f"layer{layer}/{what}_in"], values[f"layer{layer}/{what}_out"] = inputs[0], output

        return hook

    for index, layer in enumerate(flamingo.language.model.model.layers):
        if hasattr(layer, "gated"):
            handles.append(layer.gated.register_forward_hook(note(index, "gated")))
            handles.append(layer.gated.attn.register_forward_hook(note(index, "xattn")))
    flamingo(**batch)
    for handle in handles:
        handle.remove()
    return values


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_gated_blocks(kind):
    expected = expected_arrays(f"gated_{kind}")
    for case in {key.split("/")[0] for key in expected} & set(MATCHED):
        model = model_for(kind, CASES[case])
        ours = gated_values(flamingo_of(model), batch_of(CASES[case]))
        theirs = {key.removeprefix(f"{case}/"): value for key, value in expected.items() if key.startswith(f"{case}/")}
        assert len(theirs) == 3 * sum("gated_in" in key for key in ours), "another number of gated layers"
        text = torch.tensor(CASES[case]["attention_mask"]) == 1
        for key, value in theirs.items():
            assert_close(ours[key][text], value[text], ACTIVATIONS, f"{case}/{key}")
