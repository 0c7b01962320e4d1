"""Training steps of the 9B model in packed rows."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import Tensor
from torch.utils._pytree import tree_leaves

from benchmarks.rounds import Timer, peak_bytes
from mmgpt.engine.hooks.throughput import token_flops
from mmgpt.models import flamingo_of
from mmgpt.models.memory.compile import compile_layers, compiled
from mmgpt.models.memory.planner import Sizes, plan
from mmgpt.models.memory.sizes import build_without_weights

from .models import build, config, measured_limits, packed_batch, seconds_of
from .parts import Figure, Setting

GB = 2**30
# The largest difference of a loss that is computed in another way, as a share of it. bfloat16 has 8 bits.
CLOSE = 0.02


def check(what: str, values: Mapping[str, float], expected: Mapping[str, float], close: float = CLOSE) -> None:
    """Raises a ValueError when one of the values differs from the expected one by more than a share `close` of it."""
    for name, value in values.items():
        if not abs(value - expected[name]) <= close * abs(expected[name]):
            raise ValueError(f"{what}: {name} {value:.6g} instead of {expected[name]:.6g}")


class Steps:
    """Training steps of a model with LoRA: forward, backward and optimizer, on a batch of packed rows of 2,048 tokens.

    Attributes:
        rows, length, samples: of a batch, see `packed_batch`.
    """

    def __init__(self, setting: Setting, cfg: Config):
        self.setting, self.side = setting, cfg.prepare_images.size
        self.rows, self.length, self.samples = (2, 64, 2) if setting.tiny else (4, 2048, 8)
        self.model = build(setting, cfg).train()
        self.wrapper: OptimWrapper = build_optim_wrapper(self.model, cfg.optim_wrapper)
        self.batch = self.make_batch()

    @property
    def tokens(self) -> int:
        """Number of tokens of a batch; none is padding."""
        return self.rows * self.length

    def make_batch(self, rows: int | None = None, seed: int = 0) -> dict:
        """A batch of other samples, or also of another number of rows."""
        return packed_batch(self.model, rows or self.rows, self.length, self.samples, self.side, seed)

    def step(self, batch: dict | None = None) -> None:
        """A whole step of training."""
        self.model.train_step(self.batch if batch is None else batch, self.wrapper)

    def forward_backward(self, batch: dict | None = None) -> dict[str, float]:
        """Forward and backward pass: the loss, and the norm of all gradients together."""
        self.model.zero_grad(set_to_none=True)
        loss = sum(self.model(**(self.batch if batch is None else batch), mode="loss").values())
        loss.backward()
        gradients = [weight.grad for weight in self.model.parameters() if weight.grad is not None]
        return {"loss": loss.item(), "norm of the gradients": torch.nn.utils.get_total_norm(gradients).item()}

    def rate(self, work: Callable[[], object] | None = None) -> float:
        """Tokens per second."""
        return self.tokens / seconds_of(self.setting, work or self.step, 2 if self.setting.tiny else 5)

    def peak(self) -> int:
        """Bytes of all tensors at the peak of a step that is not the first."""
        states = self.wrapper.optimizer.state.values()
        existing = [*self.model.parameters(), *self.model.buffers(), *tree_leaves([*states, self.batch])]
        existing = [tensor for tensor in existing if isinstance(tensor, Tensor)]
        peak = peak_bytes(self.step, existing, torch.device(self.setting.device))
        return peak + sum(tensor.nbytes for tensor in existing)


def training(setting: Setting) -> Iterator[Figure]:
    """Tokens per second, the share of the measured product rate, and the peak of memory beside its plan."""
    cfg = config(setting)
    steps = Steps(setting, cfg)
    yield Figure("rows", f"{steps.rows} of {steps.length} tokens, {steps.samples} samples each")
    before = steps.forward_backward()["loss"]
    rate = steps.rate()
    yield Figure("speed", rate, "tokens/s")
    share = rate * token_flops(steps.model) / measured_limits(setting).operations
    yield Figure("share of the product rate", 100 * share, "%", "50 % at least", share >= 0.5)
    peak = steps.peak()
    yield Figure("peak memory", peak / GB, "GiB")
    after = steps.forward_backward()["loss"]
    yield Figure("loss before and after these steps", f"{before:.3f}, {after:.3f}", "", "it falls", after < before)
    del steps
    sizes = Sizes(*((2, 64, 2) if setting.tiny else (4, 2048, 8)), packed=True)
    optimizer = cfg.optim_wrapper.optimizer
    planned = plan(build_without_weights(cfg), sizes, optimizer.type).total
    yield Figure("planned peak", planned / GB, "GiB")
    ratio = peak / planned
    yield Figure("peak over plan", ratio, "", "0.9 to 1.1", 0.9 <= ratio <= 1.1)


def attention(setting: Setting) -> Iterator[Figure]:
    """Forward and backward pass of packed rows with each attention that computes samples apart, over one with masks.

    Raises:
        ValueError: the loss or the gradients differ by more than CLOSE.
    """
    steps = Steps(setting, config(setting))
    expected, plain = steps.forward_backward(), steps.rate(steps.forward_backward)
    yield Figure("masks of all pairs of tokens", plain, "tokens/s")
    for name in ("packed_flex", "packed_varlen"):
        flamingo_of(steps.model).language.model.set_attn_implementation(name)
        # On a CPU they have masks, too.
        check(name, steps.forward_backward(), expected)
        rate = steps.rate(steps.forward_backward)
        yield Figure(name, rate, "tokens/s")
        yield Figure(f"{name} over masks", rate / plain)


def compiled_steps(setting: Setting) -> Iterator[Figure]:
    """Forward and backward pass with compiled layers over one without: for one shape of rows, then for several.

    Raises:
        ValueError: the loss or the gradients of compiled layers differ by more than CLOSE.
    """
    steps = Steps(setting, config(setting))
    expected, plain = steps.forward_backward(), steps.rate(steps.forward_backward)
    yield Figure("not compiled", plain, "tokens/s")
    # A CPU's compiler takes minutes for these layers; this backend traces them like any other, and compiles nothing.
    backend = {"backend": "eager"} if setting.device == "cpu" else {}
    batches = [steps.batch, steps.make_batch(steps.rows + 1)]
    for name, dynamic, warm_up in (("one shape", False, batches[:1]), ("dynamic shapes", True, batches)):
        torch._dynamo.reset()
        compile_layers(steps.model, {**backend, "dynamic": dynamic})
        work, timer = compiled(steps.forward_backward), Timer(torch.device(setting.device))
        yield Figure(f"{name}: compiling", sum(timer(partial(work, batch)) for batch in warm_up), "s")
        check(name, work(), expected)
        rate = steps.rate(work)
        yield Figure(f"{name}: speed", rate, "tokens/s")
        yield Figure(f"{name}: over not compiled", rate / plain)
