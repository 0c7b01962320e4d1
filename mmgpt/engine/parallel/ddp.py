"""Data-parallel training of a model whose batches need not use the same parameters in all processes."""

from functools import partial

import torch
from mmengine.dist import all_reduce
from mmengine.model import MMDistributedDataParallel
from torch import nn

from mmgpt.models.loss import attach_to_graph
from mmgpt.registry import MODEL_WRAPPERS


@MODEL_WRAPPERS.register_module()
class UnusedParamsDDP(MMDistributedDataParallel):
    """MMEngine's DDP for models that leave trainable parameters out of the graph of some batches.

    A batch without images does not use the gated cross-attention blocks and the resampler. Every trainable parameter is
    attached to the graph of the loss all the same, at no cost, so that no process waits for another's gradient and none
    searches the graph. A parameter that no process has used in a step gets no gradient, as in a single process: the
    optimizer does not touch it, whereas a gradient of zeros would let it decay.

    Args:
        module: the model.
        kwargs: arguments of MMDistributedDataParallel.
    """

    def __init__(self, module: nn.Module, **kwargs) -> None:
        super().__init__(module, **kwargs)
        self.trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.used = torch.zeros(len(self.trainable), dtype=torch.uint8)

        def record_use(index: int, parameter: nn.Parameter) -> None:
            self.used[index] = parameter.grad is not None

        for index, parameter in enumerate(self.trainable):
            # The hook is called in each backward pass, before DDP fills in zeros.
            parameter.register_post_accumulate_grad_hook(partial(record_use, index))

    def _run_forward(self, data: dict | tuple | list, mode: str) -> dict:
        return attach_to_graph(super()._run_forward(data, mode), self.trainable)

    def forget_unused(self, *_: object) -> None:
        """Remove the zero gradients of parameters that no process has used, before a step of the optimizer."""
        all_reduce(self.used, "max")
        for parameter, used in zip(self.trainable, self.used.tolist(), strict=True):
            if not used:
                parameter.grad = None
