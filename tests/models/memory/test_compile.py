"""Compiled layers against layers as they are."""

import pytest
import torch

from mmgpt.models.memory.compile import check_options, compile_layers, compiled
from tests.helpers.tolerances import assert_close
from tests.models.test_checkpointing import built
from tests.models.test_flamingo import batch
from tests.models.test_lora import LORA
from tests.models.test_loss import assert_equal_gradients, gradients


@pytest.fixture(autouse=True)
def graphs():
    """A function that tells how many graphs were made since it told last."""
    counts = torch._dynamo.utils.counters["stats"]
    torch._dynamo.reset()
    counts.clear()

    def made():
        number = counts["unique_graphs"]
        counts.clear()
        return number

    yield made
    torch.compiler.set_stance("default")


def step(model):
    loss = sum(model(**batch(model), mode="loss").values())
    return loss, gradients(model, loss)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_learns_the_same(tiny_flamingo_config, graphs, checkpointing):
    model = built(tiny_flamingo_config, checkpointing, LORA)
    expected = step(model)
    assert graphs() == 0
    # Traced as for any backend, and run as it was traced, so that no compiler is needed.
    compile_layers(model, dict(backend="aot_eager"))
    loss, found = compiled(step)(model)
    assert_close(loss, expected[0])
    assert_equal_gradients(found, expected[1])
    assert graphs() > 0
    compiled(step)(model)
    assert graphs() == 0


def test_elsewhere_layers_run_as_they_are(tiny_flamingo_config, graphs):
    model = built(tiny_flamingo_config, False).eval()
    data = {key: value for key, value in batch(model).items() if key not in ("labels", "sources")}
    expected = model.generate(**data, max_new_tokens=4)
    compile_layers(model, dict(backend="aot_eager"))
    assert torch.equal(model.generate(**data, max_new_tokens=4), expected)
    assert graphs() == 0


@pytest.mark.parametrize(
    "options, said",
    [(1, "bool|mapping"), ("yes", "mapping"), (dict(mode="quick"), "quick"), (dict(mod="default"), "'mod'")],
)
def test_options_that_are_none(options, said):
    with pytest.raises(ValueError, match=f"compile=.* is neither True nor options of torch.compile.*{said}"):
        check_options(options)


@pytest.mark.parametrize("options", [None, True, False, dict(mode="default"), dict(backend="aot_eager", dynamic=True)])
def test_options(options):
    check_options(options)
