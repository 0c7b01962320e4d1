"""Beam search for one answer, whose beams are rows of the decoding batch."""

from torch import Tensor, cat, multinomial, tensor

from .sampling import Sampler

LOWEST = -1e9  # transformers' stand-in for a score of minus infinity


class BeamSearch:
    """Beam search for one answer; it chooses the tokens that transformers' own would choose.

    The score of a hypothesis is its log-probability divided by length ** length_penalty. With `beam_scores="answer"`,
    the length is that of the answer with its end, as in transformers 5. With "text" it is that of prompt and answer
    without the end, as in transformers 4.30, on which the published code ran (generation/beam_search.py there): a
    hypothesis that ends early therefore wins more often.

    Attributes:
        tokens: the last token of each beam.
        parents: for each beam, the beam of the step before that it continues.
        length: number of tokens of each beam's answer.

    Args:
        sampler: of the answer, whose settings and logits processors are those of the search.
        prompt: (1, L).
        padding: number of padding tokens before the prompt, which the published code counts as its text, too.
    """

    def __init__(self, sampler: Sampler, prompt: Tensor, padding: int = 0):
        self.sampler, self.settings = sampler, sampler.settings
        self.beams, self.text_scores = self.settings.num_beams, self.settings.beam_scores == "text"
        self.offset = padding + prompt.shape[1] if self.text_scores else 0
        self.ids, self.length = prompt.expand(self.beams, -1), 0
        self.answers: list[list[int]] = [[]] * self.beams
        self.tokens, self.parents = [0] * self.beams, [0] * self.beams
        # At first all beams are the prompt, so that only one of them may be continued.
        self.log_probs = tensor([0.0] + [LOWEST] * (self.beams - 1), device=prompt.device)
        self.finished: list[tuple[float, list[int]]] = []  # (score, answer), best first, at most one for each beam

    def step(self, logits: Tensor) -> list[int] | None:
        """The answer's tokens once the search has ended, None before.

        The logits are (beams, vocabulary); those of the prompt, in the first step, are (1, vocabulary).

        1. Candidates: the best continuations of all beams, or those that are drawn. There are enough for all beams,
           even where the best ones are ends.
        2. Those that have ended are `finished`, if they are among the first ones; the best others are the next beams.
        3. The search ends at the limit of the length, or once no beam can be better than those that are finished.
        """
        settings, beams, ends = self.settings, self.beams, self.sampler.ends
        self.length += 1
        last, vocabulary = self.length == self.sampler.max_new_tokens, logits.shape[-1]
        log_probs = self.sampler.process(self.ids, logits.float().expand(beams, -1).log_softmax(dim=-1))
        log_probs, count = (log_probs + self.log_probs[:, None]).flatten(), max(2, 1 + len(ends)) * beams
        if settings.do_sample:
            indices = multinomial(log_probs.softmax(dim=0), count, generator=self.sampler.generator)
            values = log_probs[indices]
        else:
            values, indices = log_probs.topk(count)

        running = []
        for rank, (value, index) in enumerate(zip(values.tolist(), indices.tolist(), strict=True)):
            parent, token = divmod(index, vocabulary)
            ended = token in ends
            if rank < beams and (ended or (last and not self.text_scores)):
                self._finish(value, self.answers[parent] + [token], ended)
            # An end is continued only where all other tokens are forbidden.
            running.append((value + LOWEST * ended, parent, token))
        running = sorted(running, key=lambda beam: -beam[0])[:beams]

        best = values.max().item() if self.text_scores else running[0][0]
        never = settings.early_stopping == "never" and settings.length_penalty > 0
        longest = self.offset + (self.sampler.max_new_tokens if never else self.length)
        possible = best / longest**settings.length_penalty
        full = len(self.finished) == beams
        done = full and settings.early_stopping is True or (self.finished[-1][0] if full else LOWEST) >= possible
        values, self.parents, self.tokens = map(list, zip(*running, strict=True))
        self.answers = [self.answers[parent] + [token] for _, parent, token in running]
        if last and self.text_scores and not done:
            for value, answer in zip(values, self.answers, strict=True):
                self._finish(value, answer)
        if last or done:
            return self.finished[0][1] if self.finished else []
        device = self.ids.device
        self.log_probs = tensor(values, device=device)
        self.ids = cat((self.ids[self.parents], tensor(self.tokens, device=device)[:, None]), dim=1)
        return None

    def _finish(self, log_prob: float, answer: list[int], ended: bool = False) -> None:
        """Adds a finished answer; the worst one is dropped where there are more than beams."""
        length = self.offset + len(answer) - (ended and self.text_scores)
        score = log_prob / length**self.settings.length_penalty
        if score > LOWEST:
            self.finished = sorted([*self.finished, (score, answer)], key=lambda each: -each[0])[: self.beams]
