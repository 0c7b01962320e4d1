"""Two processes share what one of them reads."""

import json
import os
from functools import partial
from pathlib import Path

import pytest
import torch.distributed
import torch.multiprocessing as multiprocessing

from mmgpt.datasets.instruction import InstructionDataset
from mmgpt.datasets.load_once import load_once
from mmgpt.datasets.serialized import serialize
from mmgpt.registry import PARSERS
from mmgpt.utils.errors import SampleError, SampleLocation


def one(rank, folder):
    os.environ["TMPDIR"] = f"{folder}/temporary"
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    Path(folder, f"{rank}.json").write_text(json.dumps(fail(rank, folder) | build(rank, folder)))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def build(rank, folder):
    parsed = Path(folder, f"parsed_{rank}")

    def noted(record):
        with parsed.open("a") as file:
            file.write(record["question"])
        return {"id": "", "images": [], "turns": [record]}

    PARSERS.module_dict["noted"] = noted
    data = InstructionDataset("noted", sample=3, ann_file=f"{folder}/lines.jsonl")
    del PARSERS.module_dict["noted"]
    samples = [data.get_data_info(i)["turns"] for i in range(len(data))]
    return {
        "samples": samples,
        "parsed": parsed.read_text() if parsed.exists() else "",
        "writable": data.data_bytes.flags.writeable,
    }


def fail(rank, folder):
    def load(error):
        raise error

    errors = []
    for error in (SampleError("no key", SampleLocation(file="a.json", record=3)), Odd("one", "two")):
        with pytest.raises(Exception) as raised:
            load_once(partial(load, error))
        errors.append([type(raised.value).__name__, str(raised.value)])
    # They are still in step.
    return {"errors": errors, "then": list(load_once(lambda: serialize([{"id": "a"}])))}


class Odd(Exception):
    """Cannot be pickled: unpickling would call it with one argument."""

    def __init__(self, one, two):
        super().__init__(one)


def test_one_process_reads_and_its_error_is_raised_in_both(tmp_path):
    (tmp_path / "lines.jsonl").write_text("\n".join(json.dumps({"question": str(i)}) for i in range(5)))
    (tmp_path / "temporary").mkdir()
    multiprocessing.spawn(one, args=(str(tmp_path),), nprocs=2)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    alone = build(2, str(tmp_path))
    assert first["samples"] == second["samples"] == alone["samples"]
    assert len(alone["samples"]) == 3
    assert (first["parsed"], second["parsed"], alone["parsed"]) == ("01234", "", "01234")
    assert not first["writable"]
    assert not second["writable"]
    assert alone["writable"]

    assert first["errors"] == [["SampleError", "file 'a.json', record 3: no key"], ["Odd", "one"]]
    assert second["errors"] == [
        ["SampleError", "file 'a.json', record 3: no key"],
        ["RuntimeError", "rank 0: Odd: one"],
    ]
    assert first["then"] == second["then"] == [{"id": "a"}]
    assert os.listdir(tmp_path / "temporary") == []


def test_single_process_gets_what_it_loads():
    packed = serialize([{"id": "a"}])
    assert load_once(lambda: packed) is packed
