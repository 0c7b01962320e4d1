"""The shards of a dataset, read one after the other."""

import os
from bisect import bisect_right
from collections.abc import Iterator

from mmgpt.utils.errors import SampleError, SampleLocation
from mmgpt.utils.shard_files import local_path, shard_files, shard_folder

from .tables import read_arrow, read_parquet
from .tar import read_tar

READERS = {".parquet": read_parquet, ".arrow": read_arrow, ".tar": read_tar}


class Shards:
    """Shards that an annotation file names, in the order of their names.

    Args:
        path: file or pattern of files, a folder of `Dataset.save_to_disk`, or an address on the Hub (see `local_path`).

    Attributes:
        path: the same on this machine.
        folder: folder that the names of images start from.
        files: paths of the shards.
        starts: number of records before each shard, as far as they have been read.

    Raises:
        FileNotFoundError: there is no such file, or the dataset is not in the Hub's cache.
        ValueError: a folder that `Dataset.save_to_disk` has not written.
    """

    def __init__(self, path: str):
        self.path = local_path(path)
        self.folder, self.files = shard_folder(self.path), shard_files(self.path)
        self.starts: list[int] = []
        if not self.files:
            raise FileNotFoundError(f"no annotation file {path!r}")

    def records(self) -> Iterator[dict]:
        """Records of all shards; see `tar` and `tables`.

        Raises:
            SampleError: a shard or a record of it is damaged.
        """
        self.starts, number = [], 0
        for file in self.files:
            self.starts.append(number)
            read = READERS[os.path.splitext(file)[1]]
            for record in read(file, os.path.relpath(file, self.folder or ".")):
                yield record
                number += 1
        if not number:
            raise SampleError("the shards hold no record", SampleLocation(file=self.path))

    def origin(self, number: int) -> tuple[str, int]:
        """Path of the shard with a record, and the number of the record in it."""
        shard = bisect_right(self.starts, number) - 1
        return self.files[shard], number - self.starts[shard]

    def state(self) -> list[list]:
        """Name, size and modification time of each shard: an index holds as long as these are the same."""
        status = [(os.path.relpath(file, self.folder or "."), os.stat(file)) for file in self.files]
        return [[name, file.st_size, file.st_mtime_ns] for name, file in status]
