"""Predictions on disk, written batch by batch, so that an interrupted evaluation can be resumed."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmgpt.utils.atomic import atomic_write

ALL_PREDICTIONS = "predictions.jsonl"
EARLIER_RUNS = "part-before.jsonl"


class Predictions:
    """The predictions of one evaluation, as JSON lines in a folder.

    Each process writes its own file `part-<rank>.jsonl`; `finish` merges them in the order of the data. A row is a dict
    with `index`, the sample's index in the data.

    Args:
        folder: folder of this evaluation alone.
        rank: rank of this process.
    """

    def __init__(self, folder: str | Path, rank: int = 0):
        self.folder = Path(folder)
        self.part = self.folder / f"part-{rank}.jsonl"

    def clear(self) -> None:
        """Remove the files of earlier runs. To be called by one process."""
        for path in self._files():
            path.unlink()

    def gather(self) -> None:
        """Merge the files of earlier runs, of any number of processes, into one part. To be called by one process."""
        rows = self.read()
        with atomic_write(self.folder / EARLIER_RUNS) as path:
            path.write_text(_lines(rows.values()), encoding="utf-8")
        for path in self._files():
            if path.name != EARLIER_RUNS:
                path.unlink()

    def add(self, rows: Iterable[dict]) -> None:
        """Append the rows of a batch to the file of this process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.part.open("a", encoding="utf-8") as file:
            file.write(_lines(rows))

    def read(self) -> dict[int, dict]:
        """All rows by index. A last line without its line break, left by a killed process, is skipped."""
        rows: dict[int, dict] = {}
        for path in self._files():
            for line in path.read_bytes().split(b"\n")[:-1]:
                row = json.loads(line)
                rows.setdefault(row["index"], row)
        return rows

    def finish(self, size: int) -> list[dict]:
        """Merge all parts into one file; returns its rows, in the order of the data. To be called by one process.

        Raises:
            ValueError: predictions are missing, or their index is not below `size`; names some.
        """
        rows = self.read()
        mismatched = sorted(set(range(size)) ^ set(rows))
        if mismatched:
            raise ValueError(f"{self.folder}: {len(rows)} predictions for {size} samples; wrong are {mismatched[:5]}")
        ordered, merged_file = [rows[i] for i in range(size)], self.folder / ALL_PREDICTIONS
        with atomic_write(merged_file) as path:
            path.write_text(_lines(ordered), encoding="utf-8")
        for path in self._files():
            if path != merged_file:
                path.unlink()
        return ordered

    def _files(self) -> Sequence[Path]:
        return [*self.folder.glob(ALL_PREDICTIONS), *sorted(self.folder.glob("part-*.jsonl"))]


def _lines(rows: Iterable[dict]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
