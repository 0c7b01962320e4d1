"""Messages about mistakes that appear while the components of a config are built."""

import copy
import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch.utils.data import DataLoader

from mmgpt.cli.failures import DiskFault
from mmgpt.cli.tool import run, user_message
from mmgpt.registry import DATASETS, MODELS
from mmgpt.utils.errors import SampleLocation, located

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _a_tool(monkeypatch):
    """The command line of a tool; with that of a test process, all packages would be in the tool's folder."""
    monkeypatch.setattr(sys, "argv", ["tools/train.py"])


@MODELS.register_module()
class Faulty:
    """Component with a bug of its own, whatever the config sets."""

    def __init__(self, kind, **kwargs):
        if kind is TypeError:
            helper(**kwargs, wrong=1)
        raise kind("'one' is none of 'two'")


def helper(right=1):
    """Takes one argument."""
    return right


def message_of(build, cfg):
    with pytest.raises(Exception) as raised:
        build(cfg)
    message = user_message(raised.value)
    traceback.clear_frames(raised.tb)  # torch's refer to each other, and keep worker processes
    return message


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("lora.rnk", 3, ["LoraConfig", "'rnk'", "lora_alpha"]),
        ("lora.target_modules", ["nothing"], ["lora.target_modules: 'nothing' matches no module", "q_proj"]),
        ("module.perceiver.dept", 3, ["PerceiverResampler", "did you mean 'depth'", "Choices: depth, dim"]),
        ("module.gated.gate", 1, ["GatedCrossAttentionBlock", "'gate'", "gate_init"]),
        ("module.language.dtyp", "float32", ["load_language_model", "did you mean 'dtype'"]),
        ("module.vision.layr", 2, ["OpenCLIPVision", "did you mean 'layer'"]),
    ],
)
def test_wrong_arguments_of_a_model_are_told_with_choices(tiny_flamingo_config, option, value, words):
    model = dict(type="LoRAModel", module=copy.deepcopy(tiny_flamingo_config), lora=dict(r=2, target_modules=["to_q"]))
    cfg = Config(model)
    cfg.merge_from_dict({option: value})
    message = message_of(MODELS.build, cfg._cfg_dict)
    for word in words:
        assert word in message


def test_choices_of_a_component_that_passes_arguments_on():
    message = message_of(DATASETS.build, dict(type="InstructionDataset", parser="dolly", sampel=1))
    assert "did you mean 'sample'" in message
    assert "ann_file" in message


def test_an_unknown_type_is_told_with_the_registered_ones():
    message = message_of(MODELS.build, dict(type="Flamngo"))
    assert message.startswith("the config has the type 'Flamngo', which is not a registered model")
    assert "did you mean 'Flamingo'?" in message
    assert "LoRAModel" in message


def test_a_value_that_the_config_does_not_set_is_told():
    message = message_of(lambda cfg: cfg.model.lora, Config(dict(model=dict(type="Flamingo"))))
    assert message.startswith("the config does not set 'lora', which is needed here")


def test_a_value_that_an_error_quotes_is_found_in_the_config():
    cfg = dict(type="Faulty", kind=AttributeError, deep=[dict(x="two")])
    assert message_of(MODELS.build, cfg).startswith(
        "deep[0].x='two' in the config does not fit: 'one' is none of 'two'"
    )


def test_a_wrong_argument_of_the_data_loader_is_told_with_choices(make_runner):
    runner = make_runner(**{"train_dataloader.numworkers": 1})
    message = message_of(lambda _: runner.train(), None)
    assert "did you mean 'num_workers'" in message


@pytest.mark.parametrize(
    ("build", "cfg"),
    [
        (MODELS.build, dict(type="Faulty", kind=TypeError, right=1)),
        (MODELS.build, dict(type="Faulty", kind=AttributeError)),
        (MODELS.build, dict(type="Faulty", kind=AttributeError, two=1)),
        (MODELS.build, dict(type="Faulty", kind=RuntimeError, x="two")),
        (lambda cfg: Faulty(**cfg), dict(kind=ValueError, x="two")),
    ],
)
def test_other_errors_keep_their_traceback(build, cfg):
    assert message_of(build, cfg) is None


class Broken(torch.utils.data.Dataset):
    """Its sample raises an error of the package, with a note about the sample."""

    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 1

    def __getitem__(self, index):
        with located(SampleLocation("own", record=3)):
            raise self.error("no 'answer'")


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("error", [ValueError, KeyError])
def test_a_note_about_the_sample_is_in_the_message(monkeypatch, workers, error):
    monkeypatch.setattr("mmgpt.__file__", __file__)
    message = message_of(lambda error: list(DataLoader(Broken(error), num_workers=workers)), error)
    assert message == "no 'answer'\nin dataset 'own', record 3"


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_the_system_names_its_file(tmp_path, workers):
    class Missing(torch.utils.data.Dataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return open(tmp_path / "gone.json").read()

    message = message_of(lambda data: list(DataLoader(data, num_workers=workers)), Missing())
    assert "gone.json" in message
    assert "No such file or directory" in message
    assert "\n" not in message
    with pytest.raises(IsADirectoryError) as raised:
        open(tmp_path)
    assert user_message(raised.value) == f"{tmp_path}: Is a directory"


def test_a_full_disk_before_the_run_ends_as_one_during_it(capsys):
    def full():
        raise DiskFault("make room")

    with pytest.raises(SystemExit) as ended:
        run(full)
    assert ended.value.code == 74
    assert capsys.readouterr().err == "error: make room\n"


def test_an_interrupt_ends_without_a_traceback(capsys):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        run(interrupted)
    assert ended.value.code == 130
    assert "--resume" in capsys.readouterr().err


ENDING = """
import atexit, sys
from mmgpt.cli.tool import run

class Last:
    def __del__(self):
        print("the interpreter was taken down")

last = Last()

def main():
    import torch.distributed
    torch.distributed.init_process_group("gloo")
    torch.distributed.barrier()  # The first process holds the store that the others find each other by.
    atexit.register(print, "what libraries do at the end")
    if torch.distributed.get_rank() == RAISING:
        raise ValueError("a mistake")

run(main)
"""


@pytest.mark.parametrize("raising", [None, 1])
def test_one_of_several_processes_ends_before_the_interpreter_is_taken_down(tmp_path, raising):
    """Threads of the process group would still run then, and may abort the process."""
    script = tmp_path / "ending.py"
    script.write_text(ENDING.replace("RAISING", str(raising)))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launcher, str(script)], env=environment, capture_output=True, text=True, timeout=120)
    if raising is None:
        assert done.returncode == 0
        assert done.stdout.count("what libraries do at the end") == 2
        assert "taken down" not in done.stdout
    else:
        assert done.returncode == 1
        assert "error: a mistake" in done.stderr
