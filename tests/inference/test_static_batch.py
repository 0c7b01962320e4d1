"""Decoding with static tensors against each sequence computed again as a whole."""

import pytest
import torch

from mmgpt.inference import static_batch
from mmgpt.inference.decoding_batch import DecodingBatch
from mmgpt.inference.kv_cache import PrefixKV
from mmgpt.inference.prefill import encode_images, prefill
from mmgpt.inference.static_batch import StaticDecodingBatch, check_static
from tests.helpers.tolerances import assert_close
from tests.inference.test_decoding_batch import LENGTHS, Check, texts
from tests.models.test_gated_lm import FAMILIES, gated

REFUSED = {
    "gemma3_text": "attend to the last 4 tokens only",
    "mpt": "takes no position_ids",
    "bloom": "takes no position_ids",
}


@pytest.fixture(autouse=True)
def few_positions(monkeypatch):
    """Tensors of a few positions, so that they grow in the tests."""
    monkeypatch.setattr(static_batch, "SHORTEST", 8)


def joining_and_leaving(check):
    """Sequences join and leave between steps, in every way that the scheduler knows."""
    made = texts(check.model)
    check.add(*made[1])  # without an image
    check.step()
    check.add(*made[0])
    check.add(*made[2])
    check.step()
    check.step()
    check.select([0, 2])
    check.step()
    check.add(*made[3])
    check.step()
    prefix = check.batch.prefix(2)
    assert len(prefix) == LENGTHS[3] + 1
    check.select([2, 2, 1])
    check.step()
    check.select([])
    check.add(*made[2])
    check.step()
    return prefix


@pytest.mark.parametrize("image_attention", ["latest", "next"])
@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in REFUSED])
def test_sequences_that_join_and_leave_equal_single_ones(family, image_attention):
    model = gated(family, image_attention)
    joining_and_leaving(Check(model, StaticDecodingBatch(model)))


def test_a_step_of_each_shape_is_made_once():
    model = gated()
    check = Check(model, StaticDecodingBatch(model))
    joining_and_leaving(check)
    first = dict(check.batch._steps)
    # The steps before the tensors grew are gone.
    assert set(first) == {(4, 32, True), (1, 16, True)}
    check.select([])
    joining_and_leaving(check)
    assert all(check.batch._steps[shape] is step for shape, step in first.items())


def test_a_compiled_step_has_no_graph_breaks_and_equals_plain_ones():
    torch._dynamo.reset()
    model = gated()
    batch = StaticDecodingBatch(model, compile=dict(backend="eager", fullgraph=True))
    check = Check(model, batch)
    for text in texts(model)[:2]:
        check.add(*text)
        check.step()
    check.step()


@pytest.mark.parametrize("threads", [torch.no_grad, torch.inference_mode])
def test_beams_that_are_reordered_equal_those_of_a_decoding_batch(threads):
    model = gated()
    ids, latents = texts(model)[2]
    with threads():
        images = encode_images(model, latents)
        [(_, prefix)] = prefill(model, [ids], [images], [PrefixKV()])
        batches = DecodingBatch(model), StaticDecodingBatch(model)
        for batch in batches:
            batch.add([prefix] * 3, [images] * 3)
        for tokens, rows in (([6, 7, 8], [1, 1, 0]), ([9, 10, 11], [2, 0, 0]), ([12, 13, 14], [0, 1, 2])):
            expected, logits = (batch.step(tokens) for batch in batches)
            assert_close(logits, expected)
            for batch in batches:
                batch.reorder(rows, len(batch.prefix(0)) - len(prefix))
    with torch.inference_mode():
        assert_close(batches[1].step([6, 7, 8]), batches[0].step([6, 7, 8]))


@pytest.mark.parametrize("family", REFUSED)
def test_models_that_need_another_cache_are_refused(family):
    message = f"a static cache is not possible with a model of type '{family}': .*{REFUSED[family]}"
    with pytest.raises(ValueError, match=message):
        check_static(gated(family))


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("_attn_implementation", "flash_attention_2", "do not take a mask for each pair of tokens"),
        ("rope_parameters", dict(rope_type="dynamic"), "its rotary embedding is 'dynamic'"),
        ("num_local_experts", 8, "it has experts"),
    ],
)
def test_settings_that_a_static_step_cannot_compute_are_refused(setting, value, message):
    model = gated()
    setattr(model.model.config, setting, value)
    with pytest.raises(ValueError, match=message):
        check_static(model)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("image_attention", "compile", "count"),
    [("latest", None, 3), ("next", None, 3), ("latest", dict(dynamic=False), 1)],  # each shape is compiled for seconds
)
def test_cuda_graphs_equal_steps_of_a_cpu(image_attention, compile, count):
    torch._dynamo.reset()
    model = gated("llama", image_attention)
    on_gpu = gated("llama", image_attention).cuda()
    batches = DecodingBatch(model), StaticDecodingBatch(on_gpu, compile)
    for text in texts(model)[:count]:
        for batch, language in zip(batches, (model, on_gpu), strict=True):
            ids, latents = (tensor.to(language.device) for tensor in text)
            images = encode_images(language, latents) if len(latents) else []
            [(_, prefix)] = prefill(language, [ids], [images], [PrefixKV()])
            batch.add([prefix], [images])
        for _ in range(3):
            tokens = torch.randint(6, 60, (len(batches[0].lengths),)).tolist()
            expected, logits = (batch.step(tokens) for batch in batches)
            torch.testing.assert_close(logits.cpu(), expected, rtol=0, atol=1e-3)


def test_an_image_is_seen_after_the_tensors_have_grown():
    model = gated()
    check = Check(model, StaticDecodingBatch(model))
    check.add(*texts(model)[0])
    for _ in range(20):  # past two doublings
        check.step()
