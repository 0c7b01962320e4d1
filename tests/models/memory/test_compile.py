"""Compiled layers against uncompiled ones."""

import threading
from contextlib import nullcontext

import pytest
import torch

from mmgpt.models.memory.compile import allow_compiling_in_threads, check_options, compile_layers, compiled
from tests.helpers.tolerances import assert_close
from tests.models.test_checkpointing import built
from tests.models.test_flamingo import batch
from tests.models.test_lora import LORA
from tests.models.test_loss import assert_equal_gradients, gradients


@pytest.fixture(autouse=True)
def graphs():
    """A function that returns the number of graphs compiled since its last call."""
    counts = torch._dynamo.utils.counters["stats"]
    torch._dynamo.reset()
    counts.clear()

    def compiled_graphs():
        number = counts["unique_graphs"]
        counts.clear()
        return number

    yield compiled_graphs
    torch.compiler.set_stance("default")


def step(model):
    loss = sum(model(**batch(model), mode="loss").values())
    return loss, gradients(model, loss)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_compiled_step_has_the_same_loss_and_gradients(tiny_flamingo_config, graphs, checkpointing):
    model = built(tiny_flamingo_config, checkpointing, LORA)
    expected = step(model)
    assert graphs() == 0
    # This backend traces like any other and runs the traced graph, so that no compiler is needed.
    compile_layers(model, dict(backend="aot_eager"))
    loss, actual = compiled(step)(model)
    assert_close(loss, expected[0])
    assert_equal_gradients(actual, expected[1])
    assert graphs() > 0
    compiled(step)(model)
    assert graphs() == 0


def test_layers_run_uncompiled_outside_of_compiled_functions(tiny_flamingo_config, graphs):
    model = built(tiny_flamingo_config, False).eval()
    data = {key: value for key, value in batch(model).items() if key not in ("labels", "sources")}
    expected = model.generate(**data, max_new_tokens=4)
    compile_layers(model, dict(backend="aot_eager"))
    assert torch.equal(model.generate(**data, max_new_tokens=4), expected)
    assert graphs() == 0


@pytest.mark.parametrize(
    "options, message",
    [(1, "bool|mapping"), ("yes", "mapping"), (dict(mode="quick"), "quick"), (dict(mod="default"), "'mod'")],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=f"compile=.* is neither a bool nor arguments of torch.compile.*{message}"):
        check_options(options)


@pytest.mark.parametrize("options", [None, True, False, dict(mode="default"), dict(backend="aot_eager", dynamic=True)])
def test_right_options_are_accepted(options):
    check_options(options)


def tracing_threads():
    return {thread for thread in threading.enumerate() if thread.name == "tracing"}


def test_one_thread_that_traced_first_stays():
    for _ in range(2):
        allow_compiling_in_threads()
    (tracing,) = tracing_threads()
    assert tracing.daemon


def test_that_thread_is_the_one_that_traces(monkeypatch):
    before, tracing = tracing_threads(), []
    monkeypatch.setattr(
        "mmgpt.models.memory.compile.FakeTensorMode",
        lambda: tracing.append(threading.current_thread()) or nullcontext(),
    )
    allow_compiling_in_threads.__wrapped__()
    assert {*tracing} == tracing_threads() - before


def test_a_tracing_thread_that_fails_is_not_waited_for(monkeypatch):
    before, failures, failed = tracing_threads(), [], threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda failure: failures.append(failure.exc_type) or failed.set())
    monkeypatch.setattr("mmgpt.models.memory.compile.FakeTensorMode", None)
    allow_compiling_in_threads.__wrapped__()
    assert failed.wait(60)
    assert failures == [TypeError]
    assert tracing_threads() <= before
