"""Several processes on one model, which need not use the same parts of it."""

from functools import partial

import torch
from mmengine.dist import all_reduce
from mmengine.model import MMDistributedDataParallel
from torch import nn

from mmgpt.models.loss import attach_to_graph
from mmgpt.registry import MODEL_WRAPPERS


@MODEL_WRAPPERS.register_module()
class UnusedParamsDDP(MMDistributedDataParallel):
    """MMEngine's DDP for models that leave trained parameters out of the graph of some batches.

    The gated blocks and the resampler have no part in a batch without images. Every trained parameter hangs on the loss
    all the same, so that no process waits for another's gradient and none searches the graph; it costs nothing. What no
    process has used in a step gets no gradient, as in a single process: the optimizer leaves it alone, where a gradient
    of zeros would decay it.

    Args:
        module: the model.
        kwargs: as in MMDistributedDataParallel.
    """

    def __init__(self, module: nn.Module, **kwargs) -> None:
        super().__init__(module, **kwargs)
        self.trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.used = torch.zeros(len(self.trained), dtype=torch.uint8)
        for place, parameter in enumerate(self.trained):
            # Called in each backward pass, before DDP puts its zeros there.
            parameter.register_post_accumulate_grad_hook(partial(self._note, place))

    def _note(self, place: int, parameter: nn.Parameter) -> None:
        self.used[place] = parameter.grad is not None

    def _run_forward(self, data: dict | tuple | list, mode: str) -> dict:
        return attach_to_graph(super()._run_forward(data, mode), self.trained)

    def forget_unused(self, *_: object) -> None:
        """Before a step of the optimizer: remove the gradients of zeros of what no process has used for it."""
        all_reduce(self.used, "max")
        for parameter, by_someone in zip(self.trained, self.used.tolist(), strict=True):
            if not by_someone:
                parameter.grad = None
