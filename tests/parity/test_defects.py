"""Defects of the published implementation's model that ours does not have, and its two layouts of one checkpoint.

That the added output rows are the same at each load is in tests/models/test_language.py.
"""

import pytest
import torch

from mmgpt.models import flamingo_of
from mmgpt.registry import MODELS
from tests.helpers.parity_data import PARITY
from tests.helpers.parity_models import (
    ACTIVATIONS,
    assert_close,
    batch_of,
    build_flamingo,
    built,
    checkpoint,
    expected_arrays,
    expected_json,
    flamingo_config,
    image_counts,
    image_tokens,
)


def first_case(with_images: bool) -> str:
    """A case that is read under the rule 'next', with or without images."""
    cases = expected_json("logits_cases").items()
    fitting = [name for name, case in cases if image_counts(case) == image_tokens(case) and not case["attend_previous"]]
    return next(name for name in fitting if (expected_json("logits_cases")[name]["images"] is not None) == with_images)


@pytest.mark.parametrize("kind", ["base", "lora"])
@pytest.mark.parametrize("method", ["forward", "generate"])
def test_an_exception_leaves_no_state_behind(kind, method):
    """Published: layers keep the last images, and after an exception text-only requests and beams go wrong."""
    model = built(kind)
    layers = flamingo_of(model).language.model.model.layers
    cases = expected_json("logits_cases")
    arguments = {"max_new_tokens": 2} if method == "generate" else {}

    def interrupt(*_):
        raise InterruptedError

    handle = layers[-1].register_forward_hook(interrupt)
    with pytest.raises(InterruptedError):
        getattr(model, method)(**batch_of(cases[first_case(with_images=True)]), **arguments)
    handle.remove()
    for name in (first_case(with_images=False), first_case(with_images=True)):
        text = torch.tensor(cases[name]["attention_mask"]) == 1
        with torch.no_grad():
            logits = model(**batch_of(cases[name]))
        assert_close(logits[text], expected_arrays(f"logits_{kind}")[name][text], ACTIVATIONS, name)


@pytest.mark.parametrize("prefix", ["model.", "flamingo.module.", "lang_encoder."])
def test_a_checkpoint_under_a_wrong_prefix_is_refused(prefix, tmp_path):
    """Published: it loads silently, with the gates at zero, and the model is blind."""
    torch.save({prefix + key: value for key, value in checkpoint("checkpoint.pt").items()}, tmp_path / "wrong.pt")
    with pytest.raises(ValueError, match=r"(?s)wrong\.pt does not belong.* are missing in it: "):
        MODELS.build(flamingo_config() | {"weights": str(tmp_path / "wrong.pt")})


@pytest.mark.parametrize("layout", ["alias", "both"])
def test_both_names_of_the_gated_blocks(layout, tmp_path):
    """A file with the alias, or with both names of each tensor, loads as the plain one does."""
    weights = {"alias": PARITY / "flamingo" / "checkpoint_alias.pt", "both": tmp_path / "both.pt"}[layout]
    torch.save(checkpoint("checkpoint.pt") | checkpoint("checkpoint_alias.pt"), tmp_path / "both.pt")
    ours = build_flamingo(weights=str(weights)).state_dict()
    theirs = built("base").state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
