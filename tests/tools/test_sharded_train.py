"""Training in two processes that share the model, which is the same as in two that have all of it."""

import json

import pytest
import torch

from mmgpt.models.weights.reader import read_weights
from tests.helpers import two_processes
from tests.helpers.tolerances import TERMS, assert_equal_checkpoints, rounding
from tests.helpers.two_processes import arguments, checkpoint, logged

# What is trained, and options: at least 10 batches of each process.
EQUAL = {
    "batches": ("lora", ["visual=11", "language=9"]),
    "full": ("full", ["visual=11", "language=9", "checkpointing=True"]),
    "both": ("both", ["visual=11", "language=9"]),
    "without images": ("lora", ["visual=0", "language=20"]),
    "compiled": ("lora", ["visual=11", "language=9", "compile.backend=aot_eager"]),
    "steps": ("full", ["accumulative_counts=3", "visual=13"]),
}
# With dropout the two differ: blank pictures draw random numbers too.
RESUMES = {
    "lora then sharded lora": ["visual=11"],
    "sharded lora then lora": ["visual=11", "in_shards=True"],
    "sharded lora then sharded lora": ["visual=11", "dropout=0.3", "in_shards=True"],
    "sharded both then both": ["visual=11", "in_shards=True"],
    "both then sharded both": ["visual=11"],
}
ANSWERS = [f"answers_{rank}.json" for rank in range(2)]


@pytest.fixture(scope="module")
def together(tmp_path_factory, tiny_flamingo_config):
    """The folder in which all runs in two processes are done."""
    configs = two_processes.write_configs(tmp_path_factory.mktemp("sharded"), tiny_flamingo_config)
    runs = []
    for name, (kind, options) in EQUAL.items():
        runs += [arguments(configs[kind], name, options)]
        runs += [arguments(configs[f"sharded {kind}"], f"sharded {name}", options)]
    for name, options in RESUMES.items():
        first, second = name.split(" then ")
        runs += [arguments(configs[f"sharded {first.removeprefix('sharded ')}"], f"whole {name}", options)]
        runs += [arguments(configs[first], name, [*options, "stop=5"])]
        runs += [arguments(configs[second], name, options, "--resume")]
    two_processes.train_on_two(configs["lora"].parent, runs)
    return configs["lora"].parent


@pytest.mark.parametrize("name", EQUAL)
def test_shards_learn_as_whole_models(name, together):
    sharded, plain = (checkpoint(together / folder.replace(" ", "_")) for folder in (f"sharded {name}", name))
    assert logged(sharded).keys() == logged(plain).keys()
    for source, values in logged(plain).items():
        assert values == pytest.approx(logged(sharded)[source], rel=rounding(TERMS, 1)), source
    assert_equal_checkpoints(sharded, plain, two_processes.LR)
    assert len(logged(plain)["train/loss"]) >= 10


def test_compiled_layers_learn_the_same(together):
    compiled, plain = (checkpoint(together / folder) for folder in ("sharded_compiled", "sharded_batches"))
    assert_equal_checkpoints(compiled, plain, two_processes.LR)
    graphs = {
        name: int((together / name / "graphs").read_text()) for name in ("compiled", "sharded_compiled", "batches")
    }
    assert graphs["compiled"] > 0
    assert graphs["sharded_compiled"] > 0
    assert graphs["batches"] == 0


@pytest.mark.parametrize("name", RESUMES)
def test_the_checkpoint_of_one_opens_in_the_other(name, together):
    resumed, uninterrupted = (checkpoint(together / folder.replace(" ", "_")) for folder in (name, f"whole {name}"))
    if "dropout=0.3" in RESUMES[name]:  # the same processes do the same
        for part in ("state_dict", "optimizer"):
            torch.testing.assert_close(resumed[part], uninterrupted[part], rtol=0, atol=0)
    else:
        assert_equal_checkpoints(resumed, uninterrupted, two_processes.LR)


def test_shards_of_a_checkpoint_are_written_and_removed_with_it(together):
    """Without them there is an error that names them."""
    folder = together / "sharded_lora_then_sharded_lora"
    kept = sorted(path.stem for path in folder.glob("iter_*.pth"))
    assert sorted(path.stem for path in folder.glob("*.shards")) == kept
    assert len(kept) == 2
    assert len(list((folder / f"{kept[-1]}.shards").iterdir())) == 2
    alone = together / "alone.pth"
    alone.write_bytes((folder / f"{kept[-1]}.pth").read_bytes())
    with pytest.raises(FileNotFoundError, match=f"missing: .*{kept[-1]}.shards"):
        read_weights(alone)


@pytest.mark.parametrize("file", ANSWERS)
def test_shards_answer_as_whole_models(file, together):
    """In the middle of an epoch, by other numbers of steps in each process."""
    sharded, plain = (json.loads((together / folder / file).read_text()) for folder in ("sharded_batches", "batches"))
    assert sharded == plain
    assert all(plain)


def test_the_best_checkpoint_is_saved_when_all_hold_the_whole_model(together):
    sharded, plain = (read_weights(together / folder / "best.pth") for folder in ("sharded_batches", "batches"))
    torch.testing.assert_close(sharded["state_dict"], plain["state_dict"], rtol=0, atol=two_processes.LR / 100)
