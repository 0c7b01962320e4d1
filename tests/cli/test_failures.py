import errno
import os
import time

import pytest
import torch

from mmgpt.cli.failures import DiskFault, is_disk_fault, is_out_of_memory, resource_message
from tests.helpers.launching import logs, run_launcher
from tests.helpers.stub_faults import FAULTY
from tests.helpers.stub_training import write_config


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried 8"),
        MemoryError(),
    ],
)
def test_lack_of_memory_lists_settings_that_need_less(error):
    assert is_out_of_memory(error)
    message = resource_message(error)
    assert message.startswith("out of memory: ")
    assert "more\n" not in message
    for words in ("batch_size", "accumulative_counts", "max_length", "checkpointing", "4 bits", "no reason given"):
        assert words in message or words == "no reason given" and error.args


def test_a_failed_allocation_of_torch_is_a_lack_of_memory():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(raised.value)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_cannot_be_written_is_named(number):
    error = OSError(number, os.strerror(number), "run/iter_3.pth")
    assert is_disk_fault(error)
    assert resource_message(error).startswith(f"run/iter_3.pth: {os.strerror(number)}. ")


def test_message_of_a_disk_fault_is_its_text():
    error = DiskFault("a checkpoint takes about 6 MB: make room")
    assert is_disk_fault(error)
    assert resource_message(error) == str(error)


def test_other_errors_have_no_resource_message():
    for error in (RuntimeError("shapes"), FileNotFoundError(errno.ENOENT, "no"), OSError("no number")):
        assert resource_message(error) is None


def test_a_process_that_dies_takes_the_other_down_and_says_why(tmp_path):
    """Its reason stands in the log of the run though the process that writes that log is the other one."""
    # With seed 0, the second process gets sample 1.
    more = FAULTY + "train_dataloader['dataset'].update(raising=RAISING, seconds=0.2)\nmax_epochs = 1000\n"
    config = write_config(tmp_path, more=more.replace("RAISING", "1"))
    start = time.monotonic()
    done = run_launcher("dist_train.sh", config, 2, "--work-dir", tmp_path / "two", timeout=240)
    assert done.returncode == 1
    assert time.monotonic() - start < 240
    assert "RuntimeError: sample 1 is broken" in done.stderr
    assert "ended by RuntimeError: sample 1 is broken" in logs(tmp_path / "two")
