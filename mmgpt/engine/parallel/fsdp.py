"""Training of one model that is sharded over several processes: torch's FSDP2 under MMEngine.

Each process holds a shard of every tensor, and gathers the tensors of a layer while that layer computes. Sharded
tensors are DTensors, which `unshard` gathers and `shard_like` makes.
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
from transformers.modeling_layers import GradientCheckpointingLayer

from mmgpt.models.flamingo import Flamingo
from mmgpt.registry import MODEL_WRAPPERS


@MODEL_WRAPPERS.register_module()
class ShardedDataParallel(nn.Module):
    """MMEngine model wrapper that shards the model in place, layer by layer.

    Decoder layers, gated cross-attention blocks and the resampler are gathered one at a time, the rest of the language
    model for the length of a step. Every tensor keeps its dtype: frozen weights bfloat16, LoRA float32. The frozen
    image encoder, less than a tenth of the weights, is replicated.

    A layer is gathered by all processes together. So where one process has images, a batch without any goes through the
    resampler and the gated cross-attention blocks as well, with blank images that no token attends to and gradients of
    zero. In evaluation, processes run out of step (answers differ in length), and each holds all weights of the model.

    Args:
        module: the model, not yet on a GPU.

    Raises:
        ValueError: the model has quantized weights, or a trainable image encoder.
    """

    def __init__(self, module: BaseModel) -> None:
        super().__init__()
        self.module = module
        (flamingo,) = (submodule for submodule in module.modules() if isinstance(submodule, Flamingo))
        for name, parameter in module.named_parameters():
            if not parameter.is_floating_point():
                raise ValueError(
                    f"sharded training needs weights that are not quantized, and {name} is {parameter.dtype}: "
                    "leave language.precision out, or train without sharding (model_wrapper_cfg)"
                )
        if any(parameter.requires_grad for parameter in flamingo.vision.parameters()):
            raise ValueError(
                "sharded training needs a frozen image encoder: keep 'vision' in `frozen`, and out of LoRA"
            )
        for parameter in module.parameters():
            if parameter.requires_grad:  # Parameters with a random initialization are all trainable.
                broadcast(parameter.detach())
        device = "cuda" if torch.cuda.is_available() else "cpu"
        mesh = init_device_mesh(device, (get_world_size(),))
        # This is transformers' base class of decoder layers, and the base class of our gated cross-attention blocks.
        layers = [layer for layer in flamingo.language.modules() if isinstance(layer, GradientCheckpointingLayer)]
        self.layers = [flamingo.perceiver, *layers]
        for layer in self.layers:
            fully_shard(layer, mesh=mesh)
        flamingo.vision.to(device)
        module.data_preprocessor.to(device)
        fully_shard(module, mesh=mesh, ignored_params=set(flamingo.vision.parameters()))
        self.train(module.training)

    def train(self, mode: bool = True) -> "ShardedDataParallel":
        """Same as torch's, except that weights are gathered for evaluation and sharded for training.

        All processes call it.
        """
        super().train(mode)
        self.gather_weights(not mode)
        return self

    def gather_weights(self, gathered: bool) -> None:
        """Hold all weights of the model from now on, or only the shards of this process; all processes call it."""
        for layer in self.layers:
            layer.set_reshard_after_forward(not gathered, recurse=False)
        for module in (self.module, *self.layers):
            module.unshard() if gathered else module.reshard()

    def train_step(self, data: dict, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """Train on a batch, as MMEngine's models do, and return what is to be logged."""
        has_images = torch.tensor(int(data.get("pixels") is not None))
        any_has_images = has_images.clone()
        all_reduce(any_has_images, "max")
        if any_has_images > has_images:
            ids = data["input_ids"]
            blank = dict(pixels=torch.zeros(len(ids), 1, 3, 1, 1), image_counts=torch.zeros(len(ids), dtype=torch.long))
            data = {**data, **blank}
        return self.module.train_step(data, optim_wrapper)

    def val_step(self, data: dict) -> list:
        """Predictions for a batch."""
        return self.module.val_step(data)

    def test_step(self, data: dict) -> list:
        """Predictions for a batch."""
        return self.module.test_step(data)

    def forward(self, *args, **kwargs):
        """Forward pass of the model, with its arguments."""
        return self.module(*args, **kwargs)


def unshard(state: object) -> object:
    """A tensor, or a dict or list of them, whose shards are gathered on the CPU of the first process.

    All processes call it; the others keep their shards.
    """

    def gather(value: DTensor) -> Tensor:
        full = value.full_tensor()
        return full.cpu() if is_main_process() else value

    return apply_to(state, lambda value: isinstance(value, DTensor), gather)


def shard_like(value: Tensor, reference: Tensor) -> Tensor:
    """This process's shard of a tensor that all processes have in full, if the reference of its shape is sharded."""
    if not isinstance(reference, DTensor):
        return value
    mesh = reference.device_mesh
    return distribute_tensor(value.to(mesh.device_type), mesh, reference.placements, src_data_rank=None)
