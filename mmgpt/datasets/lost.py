"""Counting and logging what a length limit or an empty answer takes away."""

import logging

from mmengine.logging import print_log

from .conversation import place_of

SHOWN = 5  # each of the first is logged; then only every power of ten


class LostAnswers:
    """Counters of one dataset in one process.

    Attributes:
        skipped: samples that had nothing to learn.
        cut: samples that lost a part of their answers to the length limit.
    """

    def __init__(self, name: str):
        self.name, self.skipped, self.cut = name, 0, 0

    def count(self, info: dict, skipped: bool) -> None:
        """Takes note of a sample after its transforms."""
        if skipped:
            self.skipped += 1
            self._log(self.skipped, "skipped", info)
        elif info.get("cut") and info["cut"][2]:
            self.cut += 1
            self._log(self.cut, "cut", info)

    @staticmethod
    def reason(info: dict) -> str:
        """Why a sample lost its answers, or a part of them."""
        if "cut" not in info:
            return "nothing to learn: its answer is empty"
        length, limit, lost = info["cut"]
        return f"{length} tokens, the limit is {limit}: {lost} tokens of its answers are cut away"

    def _log(self, count: int, what: str, info: dict) -> None:
        if count <= SHOWN:
            print_log(f"{what}: {place_of(info)}: {self.reason(info)}", "current", logging.WARNING)
        elif str(count).strip("0") == "1":
            print_log(f"dataset {self.name}: {count} samples {what} so far in this process", "current", logging.WARNING)
