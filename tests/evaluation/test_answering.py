"""answer_all: every batch is answered once, in order."""

import torch

from mmgpt.evaluation.answering import answer_all


class Echo(torch.nn.Module):
    def test_step(self, batch):
        assert torch.is_inference_mode_enabled()
        said = {n: "odd" if n % 2 else "even" for n in batch}
        return [{"id": n, "dataset": "d", "answer": "even", "prediction": said[n]} for n in batch]


def test_rows_keep_the_order_and_progress_is_told():
    seen = []
    rows = answer_all(Echo(), [[0, 1], [2]], seen.append)
    assert [row["id"] for row in rows] == [0, 1, 2]
    assert [row["correct"] for row in rows] == [True, False, True]
    assert seen == [2, 1]
