"""Models that processes share; with several processes see tests/tools/test_sharded_train.py."""

import pytest
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from mmgpt.engine.parallel.fsdp import ShardedDataParallel, shard_like, unshard
from mmgpt.registry import MODELS
from tests.helpers.tolerances import assert_close


@pytest.fixture(autouse=True)
def process(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_all_weights_except_the_image_encoder_are_sharded(tiny_flamingo_config):
    model = MODELS.build(tiny_flamingo_config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ShardedDataParallel(model.train())
    shared = {name for name, value in model.named_parameters() if isinstance(value, DTensor)}
    assert shared == {name for name, _ in model.named_parameters() if not name.startswith("vision.")}
    assert all(torch.equal(value, before[name]) for name, value in unshard(model.state_dict()).items())


def test_unshard_inverts_shard_like(tiny_flamingo_config):
    model = MODELS.build(tiny_flamingo_config)
    ShardedDataParallel(model.train())
    reference = model.perceiver.latents
    value = torch.arange(reference.numel(), dtype=torch.float32).reshape(reference.shape)
    part = shard_like(value, reference)
    assert isinstance(part, DTensor)
    assert torch.equal(unshard([part])[0], value)
    assert shard_like(value, value) is value


def test_evaluation_holds_all_weights(tiny_flamingo_config):
    model = MODELS.build(tiny_flamingo_config).eval()
    ids = torch.tensor([[1, 5, 6, 7]])
    expected = model(ids)
    wrapper = ShardedDataParallel(model)
    for _ in range(2):
        assert_close(wrapper.eval()(ids), expected)
        assert not any(isinstance(value, DTensor) for value in model.parameters())
        wrapper.train()
        assert any(isinstance(value, DTensor) for value in model.parameters())


def test_quantized_weights_are_refused(tiny_flamingo_config):
    model = MODELS.build(tiny_flamingo_config)
    weight = nn.Parameter(torch.zeros(4, 1, dtype=torch.uint8), requires_grad=False)
    model.language.model.model.layers[0].mlp.up_proj.weight = weight
    with pytest.raises(ValueError, match=r"up_proj.weight is torch.uint8: leave language.precision out"):
        ShardedDataParallel(model)


def test_a_trained_image_encoder_is_refused(tiny_flamingo_config):
    model = MODELS.build({**tiny_flamingo_config, "frozen": ["language"]})
    with pytest.raises(ValueError, match="needs a frozen image encoder: keep 'vision' in `frozen`"):
        ShardedDataParallel(model)
