"""Predictions on disk: written as they come, so that an evaluation that was cut can go on."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmgpt.utils.atomic import atomic_write

WHOLE = "predictions.jsonl"
BEFORE = "part-before.jsonl"


class Predictions:
    """The predictions of one evaluation, JSON lines in a folder.

    Each process writes a part of its own; `finish` makes one file of them, in the order of the data. A row is a dict
    with `index`, the sample's number in the data.

    Args:
        folder: of this evaluation alone.
        rank: number of this process.
    """

    def __init__(self, folder: str | Path, rank: int = 0):
        self.folder = Path(folder)
        self.part = self.folder / f"part-{rank}.jsonl"

    def clear(self) -> None:
        """Removes what an earlier run left (one process does)."""
        for path in self._files():
            path.unlink()

    def gather(self) -> None:
        """Puts what earlier runs wrote, whatever their number of processes, into one part (one process does)."""
        rows = self.read()
        with atomic_write(self.folder / BEFORE) as path:
            path.write_text(_lines(rows.values()), encoding="utf-8")
        for path in self._files():
            if path.name != BEFORE:
                path.unlink()

    def add(self, rows: Iterable[dict]) -> None:
        """Writes the rows of a batch behind those of this process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.part.open("a", encoding="utf-8") as file:
            file.write(_lines(rows))

    def read(self) -> dict[int, dict]:
        """All rows by index; the end of a line that was cut off by a kill is passed over."""
        rows: dict[int, dict] = {}
        for path in self._files():
            for line in path.read_bytes().split(b"\n")[:-1]:
                row = json.loads(line)
                rows.setdefault(row["index"], row)
        return rows

    def finish(self, size: int) -> list[dict]:
        """Makes one file of all parts (one process does); its rows, in the order of the data.

        Raises:
            ValueError: the prediction of a sample is missing, or there are more than `size`; names some.
        """
        rows = self.read()
        wrong = sorted(set(range(size)) ^ set(rows))
        if wrong:
            raise ValueError(f"{self.folder}: {len(rows)} predictions for {size} samples; wrong are {wrong[:5]}")
        ordered, whole = [rows[i] for i in range(size)], self.folder / WHOLE
        with atomic_write(whole) as path:
            path.write_text(_lines(ordered), encoding="utf-8")
        for path in self._files():
            if path != whole:
                path.unlink()
        return ordered

    def _files(self) -> Sequence[Path]:
        return [*self.folder.glob(WHOLE), *sorted(self.folder.glob("part-*.jsonl"))]


def _lines(rows: Iterable[dict]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
