"""Shards that are read from their beginning to their end: of object stores and web servers (fsspec), and of pipes."""

import os
import pickle
import re
import subprocess
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import BinaryIO, NamedTuple

import fsspec
import numpy as np
from torch.utils.data import get_worker_info

from mmgpt.utils.errors import SampleError, SampleLocation, located
from mmgpt.utils.shard_files import PIPE, is_address, shard_files

from .tables import stream_arrow, stream_parquet
from .tar import stream_tar

READERS = {".tar": stream_tar, ".parquet": stream_parquet, ".arrow": stream_arrow}
SUFFIX = re.compile(r"(\.tar(?=$|\.gz$|\.bz2$|\.xz$)|\.parquet$|\.arrow$)")
CHOICES = ".tar, .tar.gz, .tar.bz2, .tar.xz, .parquet, .arrow"
NUMBERS = re.compile(r"\{(\d+)\.\.(\d+)\}")
ROOM = 1 << 40  # numbers of records for each shard: how many it has is not known before its end

Sample = tuple[dict, dict[str, bytes]]


class StreamOptions(NamedTuple):
    """Options of a dataset that is read as a stream, see InstructionDataset."""

    shuffle_buffer: int
    sizes: str | None = None


class StreamedShards:
    """Shards that are read as streams.

    Args:
        address: path, address that fsspec opens (`s3://bucket/train-*.tar`), or command whose output is a tar file
            (`pipe:gsutil cat gs://bucket/train-{000..099}.tar`). A range in braces stands for each of its numbers, and
            a pattern with `*` for the files that the file system lists.

    Attributes:
        folder: '', since images are in the shards.
        files: addresses of the shards.
        starts: number of the first record of each shard.

    Raises:
        FileNotFoundError: a pattern, or a number of a range, matches no file; names all of these.
        ValueError: a shard of another format, or a package that fsspec needs for it is missing.
    """

    folder = ""

    def __init__(self, address: str):
        with _openable(address):
            matches = [(pattern, _matches(pattern)) for pattern in expand_numbers(address)]
        missing = [pattern for pattern, files in matches if not files]
        if missing or not matches:
            raise FileNotFoundError(f"no annotation file {', '.join(map(repr, missing or [address]))}")
        self.files = [file for _, files in matches for file in files]
        self.starts = [i * ROOM for i in range(len(self.files))]
        for file in self.files:
            if not file.startswith(PIPE) and not SUFFIX.search(file.partition("?")[0]):
                raise ValueError(f"{file} is not read as a stream: choose among {CHOICES}, or {PIPE}COMMAND")

    def read(self, shard: int) -> Iterator[tuple[dict | SampleError, dict[str, bytes]]]:
        """Records of a shard, or errors about broken ones, each with the bytes of its images by name.

        Raises:
            SampleError: the shard cannot be read or is damaged.
        """
        file = self.files[shard]
        address = file if file.startswith(PIPE) else file.partition("?")[0]
        match = SUFFIX.search(address)
        suffix, name = ".tar", f"pipe-{shard}.tar"
        if match and not address.startswith(PIPE):
            suffix, name = match[1], os.path.basename(address[: match.end(1)])
        with located(SampleLocation(file=file)):
            try:
                with open_stream(file) as stream:
                    yield from READERS[suffix](stream, file, name)
            except ValueError:  # a SampleError, too
                raise
            except Exception as error:  # Each store has errors of its own, of which not all are an OSError.
                raise SampleError(f"cannot be read: {type(error).__name__}: {error}") from error

    def origin(self, number: int) -> tuple[str, int]:
        """Address of the shard with a record, and the number of the record in it."""
        shard, record = divmod(number, ROOM)
        return self.files[shard], record

    def state(self) -> list[str]:
        """What tells the content of each shard from another one, as far as its file system knows.

        Raises:
            FileNotFoundError: there is no such file.
        """
        states = []
        for file in self.files:
            state = file
            if not file.startswith(PIPE):
                system, path = fsspec.core.url_to_fs(file)
                try:
                    state = f"{file}\0{system.ukey(path)}"
                except FileNotFoundError as error:
                    raise FileNotFoundError(f"no annotation file {file!r}") from error
            states.append(state)
        return states


def expand_numbers(address: str) -> list[str]:
    """Addresses with each number of the ranges in an address, such as `{000..099}`, with as many digits."""
    match = NUMBERS.search(address)
    if not match:
        return [address]
    first, last = match.groups()
    numbers = (str(number).zfill(len(first)) for number in range(int(first), int(last) + 1))
    start, end = address[: match.start()], address[match.end() :]
    return [expanded for number in numbers for expanded in expand_numbers(f"{start}{number}{end}")]


@contextmanager
def open_stream(address: str) -> Iterator[BinaryIO]:
    """Binary file at an address; of a pipe, the output of its command.

    Raises:
        OSError: the file cannot be read.
        SampleError: the command fails.
    """
    if not address.startswith(PIPE):
        with _openable(address), fsspec.open(address, "rb") as file:
            yield file
        return
    process = subprocess.Popen(address.removeprefix(PIPE), shell=True, stdout=subprocess.PIPE)
    try:
        yield process.stdout
        if process.wait():
            raise SampleError(f"the command ended with status {process.returncode}")
    except SampleError as error:
        # A command that fails gives no whole file, which would otherwise be the error.
        process.stdout.close()
        if process.wait() > 0 and "the command" not in error.reason:
            raise SampleError(f"the command ended with status {process.returncode}: {error.reason}") from error
        raise
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


@contextmanager
def _openable(address: str) -> Iterator[None]:
    """Context manager that turns the error about a package which fsspec needs into a ValueError."""
    try:
        yield
    except ImportError as error:
        raise ValueError(f"{address} cannot be opened: {error}") from error


def _matches(address: str) -> list[str]:
    """Addresses that one without ranges stands for."""
    if address.startswith(PIPE):
        return [address]
    if not is_address(address):
        return shard_files(address)
    if "*" not in address:
        return [address]
    system, path = fsspec.core.url_to_fs(address)
    return [system.unstrip_protocol(match) for match in sorted(system.glob(path))]


class StreamedSamples(Sequence):
    """Samples of shards that are read as streams, in the order of the shards.

    Each is read with the others of its run: the shard is read on where it was left, or again from its beginning where
    it was not. So indices should come in an `order`, in which each shard is read once.

    Args:
        read: function from the number of a shard to its samples, each with the bytes of its images by name.
        files: addresses of the shards, for messages.
        sizes: numbers of samples of the shards.
        counts: file of these numbers, for messages.
        shuffle_buffer: number of samples of a run, which are in memory at the same time, as encoded images.

    Attributes:
        starts: number of samples before each shard.
    """

    def __init__(
        self,
        read: Callable[[int], Iterator[Sample]],
        files: Sequence[str],
        sizes: Sequence[int],
        counts: str,
        shuffle_buffer: int,
    ):
        self.read, self.files, self.sizes, self.counts = read, files, list(sizes), counts
        self.size = shuffle_buffer
        self.starts = [0, *np.cumsum(self.sizes).tolist()]
        # Several small shards share the buffer.
        self.together = max(1, shuffle_buffer // max(self.sizes))
        self.split(None)

    def split(self, streams: int | None) -> None:
        """Prepare for indices that come from so many parts of an order, to which batches belong in turn.

        None is for those of a loop over the dataset.
        """
        self.streams = streams
        self.runs: dict[tuple[int, int], tuple[list[tuple[bytes, dict]], Iterator[Sample]]] = {}
        self.process = self.capacity = None  # process that has the runs, and how many it may have

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, index: int) -> dict:
        """Sample with the bytes of its images in `image_bytes`.

        Raises:
            SampleError: the shard cannot be read, or has not as many samples as were counted.
            ValueError: the number of worker processes does not divide the number of streams, or there are worker
                processes, and no StreamBatchSampler.
        """
        shard, number = self._place(index)
        content, images = self._run(shard, number // self.size)[number % self.size]
        return dict(pickle.loads(content), image_bytes=images)

    def check_split(self) -> None:
        """Raises ValueError where no StreamBatchSampler draws from the samples."""
        if self.streams is None:
            hint = "set dataset=dict(type='JointDataset', ...) and batch_sampler=dict(type='StreamBatchSampler', ...)"
            raise ValueError(
                f"{self.files[0]} is read as a stream, which by another sampler would begin anew for nearly every "
                f"sample: {hint} in train_dataloader"
            )

    def run_of(self, index: int) -> range:
        """Indices of the run of a sample."""
        shard, number = self._place(index)
        first = number - number % self.size
        return range(self.starts[shard] + first, self.starts[shard] + min(first + self.size, self.sizes[shard]))

    def order(self, generator: np.random.Generator) -> np.ndarray:
        """All indices: the shards in random order, and within them the runs, each in random order."""
        shards, runs = generator.permutation(len(self.sizes)), [np.empty(0, int)]
        for i in range(0, len(shards), self.together):
            ranges = [np.arange(self.starts[shard], self.starts[shard + 1]) for shard in shards[i : i + self.together]]
            indices = np.concatenate(ranges)
            step = self.size if self.together == 1 else len(indices)
            runs += [generator.permutation(indices[j : j + step]) for j in range(0, len(indices), max(step, 1))]
        return np.concatenate(runs)

    def _place(self, index: int) -> tuple[int, int]:
        """Shard of a sample, and the sample's number in it."""
        shard = bisect_right(self.starts, index) - 1
        return shard, index - self.starts[shard]

    def _run(self, shard: int, number: int) -> list[tuple[bytes, dict]]:
        """Samples of a run, pickled, with their images."""
        if self.process != os.getpid():  # A worker process does not read on in files that its parent has opened.
            worker = get_worker_info()
            workers, streams = worker.num_workers if worker else 1, self.streams or 1
            if worker:
                self.check_split()
            if streams % workers:
                raise ValueError(
                    f"num_workers={workers} must divide streams={streams} of the StreamBatchSampler: otherwise "
                    "each worker would read parts of all streams"
                )
            self.capacity = streams // workers * self.together
            self.runs, self.process = {}, os.getpid()
        if (shard, number) in self.runs:
            self.runs[shard, number] = self.runs.pop((shard, number))
            return self.runs[shard, number][0]
        _, samples = self.runs.pop((shard, number - 1), (None, None))
        size, start = self.sizes[shard], number * self.size
        if samples is None:
            while len(self.runs) >= self.capacity:
                self.runs.pop(next(iter(self.runs)))[1].close()
            samples = self.read(shard)
            next(islice(samples, start, start), None)
        run = [(pickle.dumps(sample), images) for sample, images in islice(samples, self.size)]
        is_last = start + self.size >= size
        count = start + len(run) + (is_last and next(samples, None) is not None)
        if count != min(start + self.size, size):
            more = " or more" if count > size else ""
            reason = (
                f"the shard gives {count}{more} samples (what the parser makes of its records), and {size} "
                f"according to {self.counts}: correct that file, or delete it to count anew (without `sizes`)"
            )
            raise SampleError(reason, SampleLocation(file=self.files[shard]))
        self.runs[shard, number] = run, samples
        return run

    def __getstate__(self) -> dict:
        return {**self.__dict__, "runs": {}, "process": None}
