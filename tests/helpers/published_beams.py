"""Beam search with the bookkeeping of transformers 4.30, on which the published code ran.

Later versions search in the same way with other scores: 4.30 divides the log-probability of a hypothesis by its whole
length, with the prompt and without the end (generation/beam_search.py there); later ones divide by the length of the
answer. A hypothesis that ends early therefore wins more often in 4.30.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


class Hypotheses:
    """The best finished sequences of one row, as (score, ids), at most as many as there are beams."""

    def __init__(self, config):
        self.beams, self.penalty, self.early = config.num_beams, config.length_penalty, config.early_stopping
        self.max_length = config.max_length
        self.best: list[tuple[float, Tensor]] = []
        self.done = False

    def add(self, ids: Tensor, log_prob: float) -> None:
        """Adds a finished sequence without its end; the worst is dropped when there are too many."""
        score = log_prob / len(ids) ** self.penalty
        if len(self.best) < self.beams or score > self.best[0][0]:
            self.best.append((score, ids))
            self.best.sort(key=lambda item: item[0])
            self.best = self.best[-self.beams :]

    def update_done(self, best_log_prob: float, length: int) -> None:
        """Sets `done` once no unfinished sequence, the best with `best_log_prob`, can still beat the worst one here."""
        if len(self.best) < self.beams:
            return
        if self.early == "never" and self.penalty > 0:
            length = self.max_length
        self.done |= self.early is True or self.best[0][0] >= best_log_prob / length**self.penalty


@dataclass(frozen=True)
class PublishedBeams:
    """Beam search for the argument `custom_generate` of transformers' generate.

    Attributes:
        ends: ids of the tokens that end an answer; the first one ends the sequences that are returned.
        cache_argument: name of the KV cache among the arguments of transformers' models.
    """

    ends: tuple[int, ...]
    cache_argument: str

    def __call__(self, model, input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs):
        """(B * beams, L) -> (B * returned, <= max_length); transformers calls it, the other keywords are its own."""
        beams = generation_config.num_beams
        rows = [Hypotheses(generation_config) for _ in range(len(input_ids) // beams)]
        scores = torch.tensor([0.0] + [-1e9] * (beams - 1), device=input_ids.device).repeat(len(rows))
        while True:
            cache = model_kwargs.get(self.cache_argument)  # None with use_cache=False: each step computes all tokens
            new = None if cache is None else input_ids.shape[1] - cache.get_seq_length()
            inputs = model.prepare_inputs_for_generation(input_ids, next_sequence_length=new, **model_kwargs)
            out = model(**inputs)
            log_probs = logits_processor(input_ids, out.logits[:, -1].log_softmax(-1)) + scores[:, None]
            scores, tokens, parents = self._choose(rows, input_ids, log_probs, generation_config)
            input_ids = torch.cat((input_ids[parents], tokens[:, None]), dim=1)
            model_kwargs = model._update_model_kwargs_for_generation(out, model_kwargs)
            if cache is not None:
                model_kwargs[self.cache_argument].reorder_cache(parents)
            if all(row.done for row in rows) or stopping_criteria(input_ids, None).all():
                return self._finish(rows, input_ids, scores, generation_config)

    def _choose(self, rows, input_ids, log_probs, config) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, last tokens and parents of the next beams, each (B * beams,); finished ones go to their row."""
        beams, vocabulary, ends = config.num_beams, log_probs.shape[-1], self.ends
        # These are enough candidates for all beams, even where the best ones of each beam are the ends.
        values, indices = log_probs.view(len(rows), -1).topk(max(2, 1 + len(ends)) * beams)
        chosen = []
        for number, row in enumerate(rows):
            if row.done:
                chosen += [(0.0, config.pad_token_id, number * beams)] * beams
                continue
            unfinished = []
            for rank, (value, index) in enumerate(zip(values[number].tolist(), indices[number].tolist(), strict=True)):
                parent, token = number * beams + index // vocabulary, index % vocabulary
                if token not in ends:
                    unfinished.append((value, token, parent))
                elif rank < beams:
                    row.add(input_ids[parent], value)
                if len(unfinished) == beams:
                    break
            chosen += unfinished
            row.update_done(values[number].max().item(), input_ids.shape[1] + 1)
        scores, tokens, parents = zip(*chosen, strict=True)
        device = input_ids.device
        return (
            torch.tensor(scores, device=device),
            torch.tensor(tokens, device=device),
            torch.tensor(parents, device=device),
        )

    def _finish(self, rows, input_ids, scores, config) -> Tensor:
        """The best sequences of each row, with the first of the ends where there is room, padded."""
        sequences = []
        for number, row in enumerate(rows):
            if not row.done:
                for beam in range(number * config.num_beams, (number + 1) * config.num_beams):
                    row.add(input_ids[beam], scores[beam].item())
            sequences += [ids for _, ids in row.best[::-1][: config.num_return_sequences]]
        ended = [torch.cat((ids, ids.new_tensor(self.ends[:1])))[: config.max_length] for ids in sequences]
        return torch.nn.utils.rnn.pad_sequence(ended, batch_first=True, padding_value=config.pad_token_id)
