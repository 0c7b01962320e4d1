"""Several processes that share one model between them: torch's fully sharded data parallelism (FSDP2) under MMEngine.

Each holds a part of every tensor, and gathers the tensors of one layer when that layer computes. Sharded tensors are
DTensors, which `whole` puts together and `shard_like` takes apart.
"""

import torch
from mmengine.dist import all_reduce, broadcast, get_world_size, is_main_process
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.utils import apply_to
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from mmgpt.models.flamingo import Flamingo
from mmgpt.registry import MODEL_WRAPPERS


@MODEL_WRAPPERS.register_module()
class ShardedDataParallel(nn.Module):
    """MMEngine's wrapper of a model that is sharded in place, layer by layer.

    Decoder layers, gated blocks and the resampler are gathered one at a time, the rest of the language model for the
    length of a step. Every tensor keeps its dtype: frozen weights bfloat16, LoRA float32. A frozen image encoder, of
    less than a tenth of the weights, stays whole in each process.

    A process gathers a layer when all do. So a batch without images goes through the resampler and the gated blocks
    where another process has images, with blank pictures that nobody reads and gradients of zero. In evaluation
    processes go their own ways (answers differ in length): there each holds the weights of the whole model.

    Args:
        module: the model, not yet on a GPU.

    Raises:
        ValueError: it has quantized weights, or an image encoder that is trained.
    """

    def __init__(self, module: BaseModel) -> None:
        super().__init__()
        self.module = module
        # Here: these bring transformers.

        (flamingo,) = (part for part in module.modules() if isinstance(part, Flamingo))
        _check(module, flamingo.vision)
        for parameter in module.parameters():
            if parameter.requires_grad:  # those that begin with random numbers are among them
                broadcast(parameter.detach())
        device = "cuda" if torch.cuda.is_available() else "cpu"
        mesh = init_device_mesh(device, (get_world_size(),))
        self.layers = [flamingo.perceiver, *_layers(flamingo.language)]
        for layer in self.layers:
            fully_shard(layer, mesh=mesh)
        flamingo.vision.to(device)
        module.data_preprocessor.to(device)
        fully_shard(module, mesh=mesh, ignored_params=set(flamingo.vision.parameters()))
        self.train(module.training)

    def train(self, mode: bool = True) -> "ShardedDataParallel":
        """As in torch; all processes call it, since weights are gathered for evaluation, and let go for training."""
        super().train(mode)
        self.hold_whole(not mode)
        return self

    def hold_whole(self, every: bool) -> None:
        """From now on hold all weights of the model, or the own part of them; all processes call it."""
        for layer in self.layers:
            layer.set_reshard_after_forward(not every, recurse=False)
        for part in (self.module, *self.layers):
            part.unshard() if every else part.reshard()

    def train_step(self, data: dict, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """Learn from a batch as MMEngine's models do -> what to log."""
        has_images = torch.tensor(int(data.get("pixels") is not None))
        somewhere = has_images.clone()
        all_reduce(somewhere, "max")
        if somewhere > has_images:
            ids = data["input_ids"]
            blank = dict(pixels=torch.zeros(len(ids), 1, 3, 1, 1), image_counts=torch.zeros(len(ids), dtype=torch.long))
            data = {**data, **blank}
        return self.module.train_step(data, optim_wrapper)

    def val_step(self, data: dict) -> list:
        """Answers to a batch."""
        return self.module.val_step(data)

    def test_step(self, data: dict) -> list:
        """Answers to a batch."""
        return self.module.test_step(data)

    def forward(self, *args, **kwargs):
        """As the model, whose arguments these are."""
        return self.module(*args, **kwargs)


def _layers(language: nn.Module) -> list[nn.Module]:
    """Decoder layers and gated blocks: what transformers computes again in the backward pass, where it is asked to."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in language.modules() if isinstance(module, GradientCheckpointingLayer)]


def _check(module: nn.Module, vision: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if not parameter.is_floating_point():
            raise ValueError(
                f"sharded training needs weights that are not quantized, and {name} is {parameter.dtype}: "
                "leave language.precision out, or train without sharding (model_wrapper_cfg)"
            )
    if any(parameter.requires_grad for parameter in vision.parameters()):
        raise ValueError("sharded training needs a frozen image encoder: keep 'vision' in `frozen`, and out of LoRA")


def whole(state: object) -> object:
    """A tensor, or a dict or list of them, put together where it is sharded, on the CPU of the first process.

    All processes call it; the others keep their parts.
    """

    def put_together(value: DTensor) -> Tensor:
        full = value.full_tensor()
        return full.cpu() if is_main_process() else value

    return apply_to(state, lambda value: isinstance(value, DTensor), put_together)


def shard_like(value: Tensor, reference: Tensor) -> Tensor:
    """The own part of a tensor that all processes have as a whole, if the reference of the same shape is sharded."""
    if not isinstance(reference, DTensor):
        return value
    mesh = reference.device_mesh
    return distribute_tensor(value.to(mesh.device_type), mesh, reference.placements, src_data_rank=None)
