"""Turns, and figures of given times."""

import time

import pytest
import torch
from torch import nn

from benchmarks.rounds import Decoding, Timer, in_turns, peak_bytes, ratio


def test_turns_alternate_their_order_and_the_first_round_warms_up():
    called = []

    def case(name, values):
        values = iter(values)
        return lambda: called.append(name) or next(values)

    times = in_turns({"a": case("a", [9, 1, 2]), "b": case("b", [9, 3, 4])}, 2)
    assert times == {"a": [1, 2], "b": [3, 4]}
    assert "".join(called) == "abbaab"


def test_a_ratio_is_the_median_of_the_ratios_of_the_rounds():
    # The machine was ten times slower in the last round: medians of the times would give 4 / (1 + 1).
    times = {"ours": [2.0, 4.0, 40.0], "one": [1.0, 1.0, 10.0], "other": [1.0, 1.0, 30.0]}
    assert ratio(times, "ours", "one", "other") == 1.0
    assert ratio(times, "ours", "one") == 4.0


def test_a_timer_runs_the_work_once():
    done = []
    assert Timer(torch.device("cpu"))(lambda: done.append(1)) > 0
    assert done == [1]


def test_process_time_needs_a_single_thread_on_a_cpu():
    cpu = torch.device("cpu")
    assert Timer(cpu).clock is time.perf_counter
    assert Timer(cpu, process_time=True).clock is time.process_time
    assert Timer(torch.device("cuda"), process_time=True).clock is time.perf_counter
    torch.set_num_threads(2)
    assert Timer(cpu, process_time=True).clock is time.perf_counter


def test_peak_bytes_count_new_tensors_that_live_at_once():
    tensor = torch.zeros(1000)

    def work():
        first = tensor.view(10, 100) + 1
        second = first * 2
        del first
        return second.exp()

    assert peak_bytes(work, [tensor], torch.device("cpu")) == 2 * 4000


@pytest.mark.gpu
def test_peak_bytes_on_a_gpu():
    tensor = torch.zeros(1 << 20, device="cuda")
    assert peak_bytes(lambda: tensor + 1, [tensor], tensor.device) == pytest.approx(4 << 20, rel=0.01)


def test_time_per_token_starts_with_the_second_token():
    model = nn.Embedding(2, 2)
    model.get_input_embeddings = lambda: model
    timer = Timer(torch.device("cpu"))
    seconds = iter([0.0, 0.0, 100.0, 110.0, 120.0, 130.0])
    timer.clock = lambda: next(seconds)  # begin, start, three steps, end

    def work():
        for _ in range(3):
            model(torch.tensor(0))

    assert Decoding(model, timer, work, 3)() == 10.0
