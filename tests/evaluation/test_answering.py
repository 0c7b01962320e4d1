"""answer_all: every batch is answered once, in order, by one thread or several."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from mmgpt.evaluation.answering import answer_all, cpu_threads


class Echo(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.busy, self.most = 0, 0
        self.lock = threading.Lock()
        self.cores = set()

    def test_step(self, batch):
        assert torch.is_inference_mode_enabled()
        with self.lock:
            self.busy += 1
            self.most = max(self.most, self.busy)
        # The first batch takes longest: its answers must come first all the same.
        threading.Event().wait(0.3 if batch[0] == 0 else 0.05)
        self.cores.add(torch.get_num_threads())
        with self.lock:
            self.busy -= 1
        said = {n: "odd" if n % 2 else "even" for n in batch}
        return [{"id": n, "dataset": "d", "answer": "even", "prediction": said[n]} for n in batch]


@pytest.mark.parametrize("threads", [1, 3])
def test_rows_keep_the_order_and_progress_is_told(threads):
    seen, model = [], Echo()
    rows = answer_all(model, [[0, 1], [2], [3, 4], [5], [6]], seen.append, threads)
    assert [row["id"] for row in rows] == list(range(7))
    assert [row["correct"] for row in rows] == [True, False, True, False, True, False, True]
    assert seen == [2, 1, 2, 1, 1]
    assert model.most == threads
    assert threads == 1 or model.cores == {1}


def test_only_few_batches_are_loaded_ahead():
    loaded, answered = [], []
    batches = ([loaded.append(n) or n] for n in range(9))

    def check(count):
        answered.append(count)
        assert len(loaded) - len(answered) <= 3

    answer_all(Echo(), batches, check, threads=2)
    assert len(answered) == 9


def test_a_failing_model_ends_the_pass():
    class Broken(Echo):
        def test_step(self, batch):
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        answer_all(Broken(), [[0], [1]], threads=2)


@pytest.mark.parametrize("model", [Echo(), None])
def test_the_cores_that_torch_uses_are_as_before(model):
    def cores():
        with ThreadPoolExecutor(1) as pool:
            return torch.get_num_threads(), pool.submit(torch.get_num_threads).result()

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        try:
            answer_all(model, [[0], [1]], threads=2)
        except AttributeError:
            assert model is None
        assert cores() == (3, 3)
    finally:
        torch.set_num_threads(before)


def test_threads_follow_the_cores_torch_may_use():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert cpu_threads(Echo()) == 3
        assert cpu_threads(Echo(), most=2) == 2
        assert cpu_threads(Echo().to("meta")) == 1
    finally:
        torch.set_num_threads(before)
