"""DDP over models that leave parameters out; with several processes see tests/tools/test_dist_train.py."""

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import nn

from mmgpt.engine.parallel.ddp import UnusedParamsDDP
from tests.helpers.launching import train_on_two


class Branches(BaseModel):
    """Two parameters, of which a batch names those that it uses."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ParameterDict({name: nn.Parameter(torch.ones(1, 1)) for name in ("a", "b")})

    def forward(self, names, mode):
        return {"loss": sum(self.parts[name].sum() for name in names)}


@pytest.fixture
def model(tmp_path):
    init_default_scope("mmgpt")
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield UnusedParamsDDP(Branches())
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("counts", [1, 3])
def test_parameters_unused_in_a_step_neither_move_nor_decay(model, counts):
    """No search of the graph is asked for; the part that is not used neither moves nor decays, in each step anew."""
    optimizer = dict(type="AdamW", lr=0.1, weight_decay=0.5)
    cfg = dict(optimizer=optimizer, accumulative_counts=counts, constructor="TrainableOptimWrapperConstructor")
    wrapper, parts = build_optim_wrapper(model, cfg), model.module.parts
    for used in ("a", "b", "a"):
        before = {name: value.item() for name, value in parts.items()}
        for _ in range(counts):
            model.train_step({"names": [used]}, wrapper)
        assert [name for name, value in parts.items() if value.item() != before[name]] == [used]


def test_parameters_used_in_any_batch_of_a_step_are_updated(model):
    cfg = dict(
        optimizer=dict(type="SGD", lr=0.1), accumulative_counts=2, constructor="TrainableOptimWrapperConstructor"
    )
    wrapper = build_optim_wrapper(model, cfg)
    for names in (["a", "b"], ["a"]):
        model.train_step({"names": names}, wrapper)
    assert [value.item() for value in model.module.parts.values()] == pytest.approx([0.9, 0.95])


def test_a_config_without_a_wrapper_gets_unused_params_ddp(tmp_path):
    """MMEngine's own, which it would get, needs a GPU, and images in the batches of every process."""
    done = train_on_two(tmp_path, "model_wrapper_cfg = None\n")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "two" / "latest.pth").exists()
