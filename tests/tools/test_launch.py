"""The scripts that start several processes; stubs stand for srun and for Python, which starts torchrun."""

import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
TRAIN, TEST = str(TOOLS / "train.py"), str(TOOLS / "test.py")


@pytest.fixture
def start(tmp_path):
    """A function that runs a script beside files c.py and c.pth and gives its result, the stubs' words by line."""
    for name in ("python", "srun"):
        stub = tmp_path / name
        stub.write_text(f'#!/usr/bin/env bash\nprintf "%s\\n" {name} "$@" "port=${{MASTER_PORT:-}}"\n')
        stub.chmod(0o755)
    for name in ("c.py", "c.pth"):
        (tmp_path / name).touch()

    def run(script, *arguments, **environment):
        command = ["bash", str(TOOLS / script), *arguments]
        path = f"{tmp_path}:/usr/bin:/bin"
        return subprocess.run(
            command, cwd=tmp_path, env={"PATH": path, **environment}, capture_output=True, text=True, timeout=60
        )

    return run


def words(done):
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


def value(said, option):
    return said[said.index(option) + 1]


def test_one_machine(start):
    said = words(start("dist_train.sh", "c.py", "8", "--cfg-options", "a=1 2"))
    assert said[:3] == ["python", "-m", "torch.distributed.run"]
    assert value(said, "--nproc-per-node") == "8"
    assert value(said, "--nnodes") == "1"
    assert value(said, "--master-port") == "29500"
    assert said[said.index(TRAIN) :] == [TRAIN, "c.py", "--cfg-options", "a=1 2", "--launcher", "pytorch", "port="]


def test_several_machines(start):
    said = words(start("dist_test.sh", "c.py", "c.pth", "4", NNODES="2", NODE_RANK="1", MASTER_ADDR="first", PORT="7"))
    options = ("--nnodes", "--node-rank", "--master-addr", "--master-port", "--nproc-per-node")
    assert [value(said, option) for option in options] == ["2", "1", "first", "7", "4"]
    assert said[said.index(TEST) :][:3] == [TEST, "c.py", "c.pth"]
    done = start("dist_train.sh", "c.py", "4", NNODES="2")
    assert done.returncode == 1
    assert "NNODES=2 needs MASTER_ADDR" in done.stderr
    assert not done.stdout


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ["8", "8", "gpu:8", "5"]),
        ({"GPUS": "2"}, ["2", "2", "gpu:2", "5"]),
        ({"GPUS": "16", "GPUS_PER_NODE": "4", "CPUS_PER_TASK": "3"}, ["16", "4", "gpu:4", "3"]),
    ],
)
def test_slurm(start, environment, expected):
    said = words(start("slurm_train.sh", "part", "job", "c.py", "--resume", **environment))
    assert said[0] == "srun"
    assert [value(said, "--partition"), value(said, "--job-name")] == ["part", "job"]
    options = ("--ntasks", "--ntasks-per-node", "--gres", "--cpus-per-task")
    assert [value(said, option) for option in options] == expected
    run = ["python", "-u", TRAIN, "c.py", "--resume", "--launcher", "slurm"]
    assert said[said.index("python") :] == [*run, "port="]


def test_slurm_is_told_more(start):
    said = words(start("slurm_test.sh", "p", "j", "c.py", "c.pth", SRUN_ARGS="--qos low -x a", PORT="29511"))
    assert said[said.index("--qos") :][:4] == ["--qos", "low", "-x", "a"]
    assert said[said.index(TEST) :] == [TEST, "c.py", "c.pth", "--launcher", "slurm", "port=29511"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["dist_train.sh"], 2, "dist_train.sh CONFIG GPUS [options of tools/train.py]"),
        (["dist_train.sh", "c.py"], 2, "dist_train.sh CONFIG GPUS [options of tools/train.py]"),
        (["dist_train.sh", "c.py", "--resume"], 2, "dist_train.sh CONFIG GPUS"),
        (["dist_train.sh", "gone.py", "2"], 1, "error: there is no config file 'gone.py'"),
        (["dist_train.sh", "c.py", "all"], 1, "error: GPUS is 'all': give the number of processes"),
        (["dist_test.sh", "c.py", "gone.pth", "2"], 1, "error: there is no checkpoint 'gone.pth'"),
        (["dist_test.sh", "c.py", "c.pth"], 2, "dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]"),
        (["slurm_train.sh", "part", "job"], 2, "slurm_train.sh PARTITION JOB_NAME CONFIG [options of tools/train.py]"),
        (["slurm_test.sh", "part", "job", "c.py", "gone.pth"], 1, "there is no checkpoint 'gone.pth'"),
    ],
)
def test_mistakes_end_before_anything_starts(start, arguments, code, message):
    done = start(*arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert not done.stdout
