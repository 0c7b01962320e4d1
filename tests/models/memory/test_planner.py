"""The plan of a training step against what the step is seen to take."""

import json
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.profiler import ProfilerActivity, profile

from mmgpt.cli import load_config
from mmgpt.models.lora import flamingo_of
from mmgpt.models.memory.planner import LiveBytes, Sizes, example, plan, step_peak
from mmgpt.models.memory.sizes import build_without_weights

CONFIGS = Path(__file__).parents[3] / "configs" / "mmgpt"
LANGUAGE = dict(
    model_type="llama",
    vocab_size=2000,
    hidden_size=128,
    intermediate_size=352,
    num_hidden_layers=4,
    num_attention_heads=4,
    max_position_embeddings=256,
)
TOWER = dict(
    embed_dim=64,
    vision_cfg=dict(image_size=64, layers=2, width=64, head_width=16, patch_size=8),
    text_cfg=dict(context_length=4, vocab_size=8, width=16, heads=1, layers=1),
)
SIZES = Sizes(8, 128, 1)
LOW = dict(checkpointing=True, loss_chunk=64)
TILES = dict(LOW, perceiver=dict(depth=1, num_latents=16, max_tiles=2))


def base(folder):
    """Config files of a small base, written into a folder, and the options that name them."""
    (folder / "open_clip_config.json").write_text(json.dumps(dict(model_cfg=TOWER)))
    (folder / "config.json").write_text(json.dumps(LANGUAGE))
    return dict(language_model=str(folder), vision_model=str(folder))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Builds lora_joint's model at small size without weights; with `lora` False, without LoRA."""
    loaded = load_config(CONFIGS / "lora_joint.py", base(tmp_path_factory.mktemp("base")))

    def build(lora=True, train=None, **changes):
        cfg = deepcopy(loaded)
        cfg.model.module.update(perceiver=dict(depth=1, num_latents=16), gated=dict(every_n_layers=2))
        cfg.model.module.update(changes)
        if train:
            cfg.model.update(train=train, lora=dict(r=4, target_modules="all-linear"))
        cfg.model = cfg.model if lora else cfg.model.module
        return build_without_weights(cfg)

    return build


def with_values(model, device):
    model.to_empty(device=device)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.normal_(std=0.02) if tensor.is_floating_point() else tensor.zero_()
    return model.train()


def trainer(model, sizes, device):
    """A function that takes a whole step of training; states of the optimizer exist."""
    batch = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in example(model, sizes).items()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)

    def step():
        sum(model(**batch, mode="loss").values()).backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    held = [*model.parameters(), *model.buffers(), *(v for s in optimizer.state.values() for v in s.values())]
    return step, sum(tensor.nbytes for tensor in held)


def measured(model, sizes):
    """Peak of a step on the CPU as torch's allocator saw it, and with it all that is there before."""
    flamingo_of(model).takes_features = sizes.features
    step, held = trainer(with_values(model, "cpu"), sizes, "cpu")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return held + peak


@pytest.mark.parametrize(
    ("changes", "sizes"),
    [
        (dict(), SIZES),
        (dict(checkpointing=True), SIZES),
        (dict(loss_chunk=64), SIZES),
        (LOW, SIZES),
        (LOW, SIZES._replace(packed=True)),
        (dict(), SIZES._replace(supervised=10)),
        (LOW, SIZES._replace(images=0)),
        (LOW, SIZES._replace(features=True)),
        (TILES, SIZES._replace(tiles=2)),
        (TILES, SIZES._replace(tiles=2, features=True)),
    ],
    ids=[
        "plain",
        "checkpointed",
        "chunked",
        "both",
        "packed",
        "answers",
        "text",
        "features",
        "tiles",
        "features of tiles",
    ],
)
def test_the_plan_is_what_a_step_takes(small, changes, sizes):
    planned, taken = plan(small(**changes), sizes).total, measured(small(**changes), sizes)
    assert planned == pytest.approx(taken, rel=0.15)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_plan_of_full_tuning(small, checkpointing):
    changes = dict(lora=False, checkpointing=checkpointing, gated=dict(every_n_layers=2, dtype="float32"))
    planned, taken = plan(small(**changes), SIZES).total, measured(small(**changes), SIZES)
    assert planned == pytest.approx(taken, rel=0.15)


def test_the_plan_of_components_trained_in_full_beside_lora(small):
    beside, lora = dict(train=["perceiver", "gated"]), plan(small(), SIZES)
    planned, taken = plan(small(**beside), SIZES), measured(small(**beside), SIZES)
    assert planned.total == pytest.approx(taken, rel=0.15)
    new = [p for name, p in small(**beside).named_parameters() if p.requires_grad and ".lora_" not in name]
    assert planned.weights["trainable float32"] > sum(p.nbytes for p in new) > lora.weights["trainable float32"]


@pytest.mark.gpu
@pytest.mark.parametrize("changes", [dict(), LOW], ids=["plain", "both"])
def test_the_plan_is_what_a_step_takes_on_a_gpu(small, changes):
    sizes = Sizes(8, 256, 2)
    planned = plan(small(**changes), sizes).total
    step, _ = trainer(with_values(small(**changes), "cuda"), sizes, "cuda")
    torch.cuda.reset_peak_memory_stats()
    step()
    assert planned == pytest.approx(torch.cuda.max_memory_allocated(), rel=0.15)


def test_attention_is_planned_as_a_gpu_computes_it(small, monkeypatch):
    """Not as in bfloat16 on a CPU, where all scores are stored."""
    dtypes = []

    def fused(q, k, v, attn_mask=None):
        dtypes.append(q.dtype)
        return scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)

    monkeypatch.setattr("mmgpt.models.attention.scaled_dot_product_attention", fused)
    step_peak(small(language=dict(dtype="bfloat16")), SIZES)
    assert torch.bfloat16 in dtypes


def test_chunks_and_checkpointing_lower_the_peak(small):
    peaks = [step_peak(small(**changes), SIZES) for changes in (dict(), dict(checkpointing=True), LOW)]
    assert peaks[1] < 0.6 * peaks[0]
    assert peaks[2] < 0.6 * peaks[1]


def test_few_supervised_tokens_lower_the_peak(small):
    few, all_tokens = (step_peak(small(), SIZES._replace(supervised=count)) for count in (10, None))
    logits = SIZES.rows * (SIZES.length - 11) * LANGUAGE["vocab_size"] * 4
    assert few < all_tokens - logits


def test_tensors_count_as_long_as_they_live():
    with LiveBytes([kept := torch.zeros(100)]) as live:
        view = kept[:50]
        first = kept + 1
        second = first * 2
        del first, view
        assert (live.now, live.peak) == (400, 800)
        del second
    assert (live.now, live.peak) == (0, 800)


def test_what_else_a_plan_holds(small):
    model, sizes = small(), Sizes(1, 16, 1)
    whole = plan(model, sizes)
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    assert whole.weights["trainable float32"] == trained
    assert whole.optimizer == 2 * trained
    assert whole.gathered == 0
    # Gradients that stay between the batches of a step.
    kept = plan(model, sizes, accumulation=4)
    assert whole.step < kept.step <= whole.step + trained
    assert plan(model, sizes, processes=2).gathered == trained
    eight = plan(model, sizes, optimizer="AdamW8bit")
    assert trained / 2 < eight.optimizer < 0.8 * whole.optimizer  # small tensors keep 32 bits
    with pytest.raises(ValueError, match="optimizer 'Lion': unknown sizes of its states; choose AdamW, AdamW8bit"):
        plan(model, sizes, optimizer="Lion")


def test_the_batch_has_images_of_the_size_that_is_asked_for(small):
    assert example(small(), SIZES)["pixels"].shape == (8, 1, 3, 64, 64)
    assert example(small(), SIZES._replace(image_size=(32, 48)))["pixels"].shape == (8, 1, 3, 32, 48)
    assert example(small(), SIZES._replace(tiles=2))["pixels"].shape == (8, 1, 3, 3, 64, 64)


def test_quantized_matrices_take_half_a_byte_an_element(small):
    model, sizes = small(), Sizes(1, 16, 1)
    whole, low = plan(model, sizes), plan(model, sizes, precision="int4")
    matrices = 4 * (4 * 128 * 128 + 3 * 128 * 352)
    assert low.weights["frozen int4"] == matrices * (0.5 + 1 / 64)
    assert whole.weights["frozen bfloat16"] - low.weights["frozen bfloat16"] == 2 * matrices
    assert low.step - whole.step == 2 * 128 * 352  # the matrix at work


def test_sharded_weights_are_gathered_a_layer_at_a_time(small):
    model, sizes = small(), Sizes(1, 16, 1)
    whole, half = plan(model, sizes), plan(model, sizes, processes=2, sharded=True)
    assert {kind: 2 * size for kind, size in half.weights.items()} == whole.weights
    assert half.optimizer == whole.optimizer / 2
    model = model.module
    block = sum(p.nbytes for p in model.language.model.model.layers[3].gated.parameters())
    layer = sum(p.nbytes for p in model.language.model.model.layers[3].decoder.parameters())
    outside = sum(p.nbytes for p in model.parameters()) - 4 * layer - 2 * block
    assert half.gathered == 2 * max(block, layer) + outside
