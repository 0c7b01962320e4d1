"""Beam search with the bookkeeping of transformers 4.30, which the published code ran on.

Later versions search alike but score otherwise: 4.30 divides the log-probability of a hypothesis by its whole length,
prompt included and the end left out (generation/beam_search.py there); today's divide by the length of the answer. So a
hypothesis that ends early wins more often in 4.30.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .generation_files import as_ids
from .transformers_names import CACHE


class Hypotheses:
    """The best finished texts of one row, as (score, ids), at most as many as there are beams."""

    def __init__(self, config):
        self.beams, self.penalty, self.early = config.num_beams, config.length_penalty, config.early_stopping
        self.max_length = config.max_length
        self.best: list[tuple[float, Tensor]] = []
        self.done = False

    def add(self, ids: Tensor, log_prob: float) -> None:
        """Takes a text without its end; the worst goes when there are too many."""
        score = log_prob / len(ids) ** self.penalty
        if len(self.best) < self.beams or score > self.best[0][0]:
            self.best.append((score, ids))
            self.best.sort(key=lambda item: item[0])
            self.best = self.best[-self.beams :]

    def update_done(self, best_log_prob: float, length: int) -> None:
        """Whether no text that still grows, the best with `best_log_prob`, can become better than the worst here."""
        if len(self.best) < self.beams:
            return
        if self.early == "never" and self.penalty > 0:
            length = self.max_length
        self.done |= self.early is True or self.best[0][0] >= best_log_prob / length**self.penalty


@dataclass(frozen=True)
class PublishedBeams:
    """A beam search for the argument `custom_generate` of transformers' generate."""

    def __call__(self, model, input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs):
        """As transformers calls it (whose keywords the rest are): (B * beams, L) -> (B * returned, <= max_length)."""
        beams = generation_config.num_beams
        rows = [Hypotheses(generation_config) for _ in range(len(input_ids) // beams)]
        scores = torch.tensor([0.0] + [-1e9] * (beams - 1), device=input_ids.device).repeat(len(rows))
        while True:
            cache = model_kwargs.get(CACHE)  # none with use_cache=False: then all is computed again
            new = None if cache is None else input_ids.shape[1] - cache.get_seq_length()
            inputs = model.prepare_inputs_for_generation(input_ids, next_sequence_length=new, **model_kwargs)
            out = model(**inputs)
            log_probs = logits_processor(input_ids, out.logits[:, -1].log_softmax(-1)) + scores[:, None]
            scores, tokens, parents = self._choose(rows, input_ids, log_probs, generation_config)
            input_ids = torch.cat((input_ids[parents], tokens[:, None]), dim=1)
            model_kwargs = model._update_model_kwargs_for_generation(out, model_kwargs)
            if cache is not None:
                model_kwargs[CACHE].reorder_cache(parents)
            if all(row.done for row in rows) or stopping_criteria(input_ids, None).all():
                return self._finish(rows, input_ids, scores, generation_config)

    def _choose(self, rows, input_ids, log_probs, config) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, last tokens and parents of the next beams, each (B * beams,); ended ones go to their row."""
        beams, vocabulary, ends = config.num_beams, log_probs.shape[-1], as_ids(config.eos_token_id)
        # So many that beams are left when each of the ends is among them for each beam.
        values, places = log_probs.view(len(rows), -1).topk(max(2, 1 + len(ends)) * beams)
        chosen = []
        for number, row in enumerate(rows):
            if row.done:
                chosen += [(0.0, config.pad_token_id, number * beams)] * beams
                continue
            going = []
            for rank, (value, place) in enumerate(zip(values[number].tolist(), places[number].tolist(), strict=True)):
                parent, token = number * beams + place // vocabulary, place % vocabulary
                if token not in ends:
                    going.append((value, token, parent))
                elif rank < beams:
                    row.add(input_ids[parent], value)
                if len(going) == beams:
                    break
            chosen += going
            row.update_done(values[number].max().item(), input_ids.shape[1] + 1)
        scores, tokens, parents = zip(*chosen, strict=True)
        device = input_ids.device
        return (
            torch.tensor(scores, device=device),
            torch.tensor(tokens, device=device),
            torch.tensor(parents, device=device),
        )

    @staticmethod
    def _finish(rows, input_ids, scores, config) -> Tensor:
        """The best texts of each row, with the first of the ends where there is room, padded."""
        texts, end = [], as_ids(config.eos_token_id)[:1]
        for number, row in enumerate(rows):
            if not row.done:
                for beam in range(number * config.num_beams, (number + 1) * config.num_beams):
                    row.add(input_ids[beam], scores[beam].item())
            texts += [ids for _, ids in row.best[::-1][: config.num_return_sequences]]
        ended = [torch.cat((ids, ids.new_tensor(end)))[: config.max_length] for ids in texts]
        return torch.nn.utils.rnn.pad_sequence(ended, batch_first=True, padding_value=config.pad_token_id)
