"""What may change when a run is resumed; that an unchanged one is the uninterrupted run is in test_loops.py."""

from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmgpt.cli import load_config
from mmgpt.engine import resume
from mmgpt.engine.resume import compare_settings, run_settings
from mmgpt.engine.runner import MMGPTRunner
from tests.helpers.launching import train_on_two
from tests.helpers.stub_training import write_config

VALIDATION = "val_dataloader = test_dataloader\nval_cfg = dict(type='ValLoop')\nval_evaluator = test_evaluator\n"
BY_EPOCH = "param_scheduler = [dict(type='ExponentialLR', gamma=0.5, by_epoch=True)]\n"
PLATEAU = VALIDATION + "param_scheduler = [dict(type='ReduceOnPlateauLR', monitor='error', by_epoch=True)]\n"
COSINE = (
    "param_scheduler = [dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=4),\n"
    "    dict(type='CosineAnnealingLR', T_max='${max_epochs}', by_epoch=True, convert_to_iter_based=True)]\n"
)
CONSTANT = "param_scheduler = [dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=4)]\n"


class Noted(Hook):
    """Notes the rate and the loss of every batch."""

    priority = "VERY_HIGH"  # before the schedule's next step

    def __init__(self):
        self.rates, self.losses = [], []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.rates.append([group["lr"] for group in runner.optim_wrapper.param_groups])
        self.losses.append(float(outputs["loss"].detach()))


@pytest.fixture
def run(make_runner, tmp_path):
    """A function that trains in a folder, from its newest checkpoint on where it is to resume."""

    def trained(more="", folder="run", resume=False, **options):
        if resume:
            options.update(resume=True, load_from=str(tmp_path / folder / "latest.pth"))
        runner, noted = make_runner(more, work_dir=folder, **options), Noted()
        runner.register_hook(noted)
        runner.train()
        return runner, noted

    return trained


def log_of(runner):
    with open(runner.logger.log_file) as file:
        return file.read()


def assert_same(runner, other):
    torch.testing.assert_close(runner.model.state_dict(), other.model.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(runner.optim_wrapper.state_dict(), other.optim_wrapper.state_dict(), rtol=0, atol=0)


def test_a_run_of_one_epoch_resumed_to_three_is_a_run_of_three(run):
    """Where the schedule does not know the end: the same samples, losses and weights."""
    whole, expected = run(CONSTANT, "whole", max_epochs=3)
    run(CONSTANT, max_epochs=1)
    resumed, noted = run(CONSTANT, resume=True, max_epochs=3)
    assert noted.losses == expected.losses[6:]
    assert noted.rates == expected.rates[6:]
    assert_same(resumed, whole)
    assert "train_cfg.max_epochs: 1 then, 3 now" in log_of(resumed)


@pytest.mark.parametrize("epochs", [1, 2])
def test_more_epochs_continue_on_the_longer_cosine(run, epochs):
    whole, expected = run(COSINE, "whole", max_epochs=3)
    run(COSINE, max_epochs=epochs)
    resumed, noted = run(COSINE, resume=True, max_epochs=3)
    assert noted.rates == expected.rates[6 * epochs :]
    assert noted.rates[0] != noted.rates[-1]
    for mine, theirs in zip(resumed.param_schedulers, whole.param_schedulers, strict=True):
        assert mine.state_dict() == theirs.state_dict()
    assert f"param_scheduler[1].T_max: {epochs} then, 3 now" in log_of(resumed)


@pytest.mark.parametrize(
    "options",
    [
        {"lr": 5e-4},
        {"warmup_iters": 9},
        {"weight_decay": 0.3},
        {"optim_wrapper.optimizer.betas": (0.8, 0.99)},
        {"lr": 5e-4, "max_epochs": 2, "optim_wrapper.optimizer.eps": 1e-6},
    ],
)
def test_changed_hyperparameters_are_those_of_a_run_that_had_them_from_its_start(run, options):
    """With and without weight decay there are two groups, and MMEngine's own record of the rate."""
    whole, expected = run(folder="whole", **{"max_epochs": 3, **options})
    run(max_epochs=1)
    resumed, noted = run(resume=True, **{"max_epochs": 3, **options})
    assert noted.rates == expected.rates[6:]
    assert len(noted.rates[0]) == 3
    drop = ("params",)
    for mine, theirs in zip(resumed.optim_wrapper.param_groups, whole.optim_wrapper.param_groups, strict=True):
        assert {k: v for k, v in mine.items() if k not in drop} == {k: v for k, v in theirs.items() if k not in drop}


KEYS = "optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(gated=dict(lr_mult=10))))\n"


def test_rates_of_components_follow_a_changed_rate_and_may_not_change_themselves(run):
    whole, expected = run(KEYS, folder="whole", max_epochs=3, lr=5e-4)
    run(KEYS, max_epochs=1)
    resumed, noted = run(KEYS, resume=True, max_epochs=3, lr=5e-4)
    assert noted.rates == expected.rates[6:]
    assert noted.rates[0][1] == 10 * noted.rates[0][0]
    assert [group.get("name") for group in resumed.optim_wrapper.param_groups] == [None, "gated", "gated", None]
    with pytest.raises(ValueError, match="paramwise_cfg.custom_keys.gated.lr_mult: 10 then, 5 now"):
        run(KEYS.replace("10", "5"), resume=True, max_epochs=3)


UNSCHEDULED = "default_hooks['param_scheduler'] = None\n"


@pytest.mark.parametrize(("before", "after"), [("", UNSCHEDULED), (UNSCHEDULED, "")])
def test_schedule_may_be_turned_off_and_on_at_a_resume(run, before, after):
    whole, expected = run(after, "whole", max_epochs=2)
    run(before, max_epochs=2)
    (path := Path(whole.work_dir).parent / "run" / "latest.pth").unlink()
    path.symlink_to("iter_9.pth")
    resumed, noted = run(after, resume=True, max_epochs=2)
    assert noted.rates == expected.rates[9:] != []
    states = [[scheduler.state_dict() for scheduler in runner.param_schedulers] for runner in (resumed, whole)]
    assert states[0] == states[1]


def test_gradient_clipping_of_the_config_is_used_after_a_resume(run):
    run(max_epochs=1)
    resumed, _ = run("optim_wrapper = dict(clip_grad=dict(_delete_=True, type='value', clip_value=0.5))", resume=True)
    assert resumed.optim_wrapper.clip_grad_kwargs == {"clip_value": 0.5}
    assert "optim_wrapper.clip_grad.type: None then, 'value' now" in log_of(resumed)


def test_more_iterations_of_a_loop_without_epochs(run):
    more = (
        "iters = 8\ntrain_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters='${iters}')\n"
        "train_dataloader.update(sampler=dict(type='InfiniteSampler'), batch_sampler=None)\n"
        "param_scheduler = [dict(type='CosineAnnealingLR', T_max='${iters}', by_epoch=False)]\n"
    )
    _, expected = run(more, "whole", iters=12)
    run(more)
    _, noted = run(more, resume=True, iters=12)
    assert noted.rates == expected.rates[8:]
    with pytest.raises(ValueError, match="with max_iters=4 the run ends after 4"):
        run(more, resume=True, iters=4)


@pytest.mark.parametrize(
    "more",
    [
        "",
        "train_dataloader.update(num_workers=2, persistent_workers=True)",
        "default_hooks['logger']['interval'] = 2\ndefault_hooks['checkpoint']['interval'] = 4",
        "optim_wrapper = dict(optimizer=dict(foreach=True))",
        "train_dataloader['dataset']['on_error'] = 'skip'\nmodel['generation'] = dict(num_beams=3)",
        VALIDATION,
    ],
)
def test_free_settings_may_change_without_a_log_line(run, tmp_path, make_runner, more):
    run(max_epochs=1)
    cfg = make_runner(max_epochs=1).cfg
    then = torch.load(tmp_path / "run" / "latest.pth", weights_only=True)
    now = load_config(write_config(tmp_path, more=more), {"max_epochs": 1})
    assert compare_settings(then, run_settings(cfg), "x") == compare_settings(then, run_settings(now), "x") == ([], [])
    if "generation" not in more:
        resumed, _ = run(more, resume=True, max_epochs=1)
        assert "Resumed" not in log_of(resumed)


def test_resume_of_a_finished_run_trains_nothing_and_fewer_epochs_are_refused(run, make_runner, tmp_path):
    run(max_epochs=2)
    _, noted = run(resume=True, max_epochs=2)
    assert noted.losses == []
    with pytest.raises(
        ValueError, match="12 batches are done, and with max_epochs=1 the run ends after 6: nothing is left"
    ):
        run(resume=True, max_epochs=1)


def test_a_number_of_epochs_that_is_not_a_number_is_refused(run):
    run(max_epochs=1)
    with pytest.raises(ValueError, match="cannot resume .*latest.pth: train_cfg.max_epochs='three' is not a number"):
        run(resume=True, max_epochs="three")


def test_a_learning_rate_that_the_optimizer_refuses_is_told_as_a_setting(run):
    run(max_epochs=1)
    with pytest.raises(ValueError, match="optim_wrapper.optimizer: Invalid learning rate: -1"):
        run(resume=True, max_epochs=2, lr=-1)


REFUSED = {
    "accumulative_counts=2": "optim_wrapper.accumulative_counts: 1 then, 2 now",
    "seed=1": "randomness.seed: 0 then, 1 now",
    "optim_wrapper.type=AmpOptimWrapper": "optim_wrapper.type: 'OptimWrapper' then, 'AmpOptimWrapper' now",
    "optim_wrapper.optimizer.type=Adam": "optim_wrapper.optimizer.type: 'AdamW' then, 'Adam' now",
    "optim_wrapper.optimizer.amsgrad=True": "optim_wrapper.optimizer.amsgrad: None then, True now",
    "optim_wrapper.paramwise_cfg.decayed=norm": "optim_wrapper.paramwise_cfg.decayed: 'gated' then, 'norm' now",
    "train_dataloader.batch_size=3": "train_dataloader.batch_size: 2 then, 3 now",
    "train_dataloader.sampler.shuffle=False": "train_dataloader.sampler.shuffle: True then, False now",
    "model.type=OtherModel": "model.type: 'StubModel' then, 'OtherModel' now",
}


@pytest.mark.parametrize("option", REFUSED)
def test_another_run_is_refused_by_name_before_a_model_is_built(run, tmp_path, monkeypatch, option):
    run(max_epochs=1)
    monkeypatch.setattr(Runner, "build_model", lambda *_: pytest.fail("a model was built"))
    name, _, value = option.partition("=")
    value = {"True": True, "False": False}.get(value, int(value) if value.isdigit() else value)
    cfg = load_config(write_config(tmp_path), {"max_epochs": 1, name: value})
    source = str(tmp_path / "run" / "latest.pth")
    cfg.merge_from_dict(dict(resume=True, load_from=source, work_dir=str(tmp_path / "run")))
    with pytest.raises(ValueError, match="these settings would make it another run") as refused:
        MMGPTRunner.from_cfg(cfg)
    first, *named, last = str(refused.value).splitlines()
    assert named == ["  " + line for line in REFUSED[option].split("; ")]
    assert source in first
    assert f"without --resume, by --cfg-options load_from={source}" in last


def test_a_seed_drawn_at_random_is_kept_on_resume(run):
    runner, _ = run(CONSTANT, seed=None, max_epochs=1)
    whole, expected = run(CONSTANT, "whole", seed=runner.seed, max_epochs=2)
    resumed, noted = run(CONSTANT, resume=True, seed=None, max_epochs=2)
    assert resumed.seed == runner.seed
    assert f"goes on with the seed {runner.seed}" in log_of(resumed)
    assert noted.losses == expected.losses[6:]
    with pytest.raises(ValueError, match=f"randomness.seed: {runner.seed} then, 5 now"):
        run(CONSTANT, resume=True, seed=5, max_epochs=3)


def test_without_a_seed_a_folder_is_not_resumed_by_mmengine_alone(run, make_runner):
    """It looks for the checkpoint only when the loaders are built."""
    runner, _ = run(seed=None, max_epochs=1)
    with pytest.raises(ValueError, match=f"set the seed that was drawn then: seed={runner.seed}"):
        make_runner(resume=True, seed=None, max_epochs=2).train()


def test_all_refused_settings_are_in_one_message(run):
    run(max_epochs=1)
    with pytest.raises(ValueError, match="(?s)accumulative_counts: 1 then, 4 now.*seed: 0 then, 2 now"):
        run(resume=True, accumulative_counts=4, seed=2, lr=1e-5)


def test_changed_options_of_foreign_components_are_warned_of(run):
    run(max_epochs=1)
    resumed, _ = run("train_dataloader['dataset']['seconds'] = 0.001", resume=True, max_epochs=1)
    assert "not mmgpt's; whether the run stays the same is unknown: train_dataloader.dataset.seconds: None then, " in (
        log_of(resumed)
    )


@pytest.mark.parametrize(("checkpoint", "epochs"), [("iter_9.pth", 2), ("iter_6.pth", 3)])
def test_a_checkpoint_without_settings_is_resumed_with_those_of_the_config(run, tmp_path, checkpoint, epochs):
    """An older version wrote it: the settings cannot be compared, and the schedule is that of the config."""
    whole, expected = run(folder="whole", max_epochs=epochs)
    run(max_epochs=2 if epochs == 2 else 1)
    content = torch.load(tmp_path / "run" / checkpoint, weights_only=True)
    del content["meta"]["settings"]
    (tmp_path / "run" / "latest.pth").unlink()
    torch.save(content, tmp_path / "run" / "latest.pth")
    resumed, noted = run(resume=True, max_epochs=epochs)
    assert noted.rates == expected.rates[content["meta"]["iter"] :] != []
    assert "does not hold the settings of its run" in log_of(resumed)
    if epochs == 2:
        assert_same(resumed, whole)


def of_older_version(path, cfg=None):
    """Take out of a checkpoint what older versions did not write; put a text in the place of its config."""
    content = torch.load(path, weights_only=True)
    del content["meta"]["settings"]
    if cfg is not None:
        content["meta"]["cfg"] = cfg
    path.unlink()
    torch.save(content, path)


def test_a_checkpoint_without_settings_is_compared_by_its_config(run, tmp_path):
    run(max_epochs=1)
    of_older_version(tmp_path / "run" / "latest.pth")
    with pytest.raises(ValueError, match=r"(?s)batch_size: 2 then, 3 now\n  randomness.seed: 0 then, 4 now\n"):
        run(resume=True, seed=4, **{"train_dataloader.batch_size": 3})
    resumed, _ = run(resume=True, max_epochs=2)
    assert "train_cfg.max_epochs: 1 then, 2 now" in log_of(resumed)
    assert "they are compared by the text of its config" in log_of(resumed)


@pytest.mark.parametrize(
    "text", ["model = dict(type=<class 'a.B'>)", "import os\nos.mkdir({made!r})", "a = os.mkdir({made!r})"]
)
def test_a_config_of_more_than_literals_is_neither_compared_nor_run(run, tmp_path, text):
    run(max_epochs=1)
    of_older_version(tmp_path / "run" / "latest.pth", text.format(made=str(tmp_path / "made")))
    resumed, _ = run(resume=True, seed=0, max_epochs=1)
    assert "they cannot be compared" in log_of(resumed)
    assert not (tmp_path / "made").exists()


def test_other_package_versions_are_logged(run, tmp_path):
    run(max_epochs=1)
    content = torch.load(tmp_path / "run" / "latest.pth", weights_only=True)
    content["meta"]["settings"]["versions"].update(torch="1.0", peft="0.1")
    (tmp_path / "run" / "latest.pth").unlink()
    torch.save(content, tmp_path / "run" / "latest.pth")
    resumed, _ = run(resume=True, max_epochs=1)
    assert f"at best: torch 1.0 then, {version('torch')} now; peft 0.1 then, " in log_of(resumed)


def test_schedule_by_epoch_knows_the_epoch_that_the_checkpoint_completed(run):
    """The checkpoint is written at the last batch, before the schedule's step at the end of the epoch."""
    _, expected = run(BY_EPOCH, "whole", max_epochs=3)
    run(BY_EPOCH, max_epochs=1)
    _, noted = run(BY_EPOCH, resume=True, max_epochs=3)
    assert noted.rates == expected.rates[6:]
    _, again = run(BY_EPOCH, resume=True, max_epochs=3)
    assert again.rates == []


def test_a_schedule_that_follows_validation_stays(run):
    run(PLATEAU, max_epochs=1)
    resumed, _ = run(PLATEAU, resume=True, max_epochs=1)
    with pytest.raises(ValueError, match="follows validation cannot be rebuilt for other settings: .*lr: 0.002 then"):
        run(PLATEAU, resume=True, max_epochs=1, lr=1e-4)


CONVERSATIONS = """
data_root = '{root}'
base = '{root}/base'
model = dict(type='LoRAModel', lora=dict(r=4, lora_alpha=8, target_modules=['q_proj', 'v_proj']), module=dict(
    type='Flamingo', language=dict(path='${{base}}', dtype='bfloat16'), weights='{root}/flamingo.safetensors',
    image_attention='latest', generation=dict(num_beams=3), gated=dict(every_n_layers=4)))
tokenize = dict(type='TokenizeSegments', tokenizer='${{base}}', max_length=64)
steps = [dict(type='FormatPrompt', template='short'), '${{tokenize}}']
train_dataloader = dict(batch_size=2, num_workers=0, collate_fn=dict(type='collate_conversations'), dataset=dict(
    type='JointDataset', visual=[dict(
        type='InstructionDataset', parser='llava', data_root='${{data_root}}', ann_file='train.json',
        data_prefix=dict(img='images'), pipeline='${{steps}}')], language=[dict(
        type='InstructionDataset', parser='alpaca', source='language', data_root='${{data_root}}',
        ann_file='train.json', pipeline='${{steps}}')]))
{more}
"""


@pytest.fixture
def conversations(tmp_path):
    """A function: the settings of a config of a language model, weights and data that lie in a folder."""

    def written(folder="a", more="", **options):
        root = tmp_path / folder
        (root / "base").mkdir(parents=True, exist_ok=True)
        (root / "images").mkdir(exist_ok=True)
        for name in ("base/config.json", "base/tokenizer.json", "base/model.safetensors", "flamingo.safetensors"):
            if not (root / name).exists():
                (root / name).write_text(f"content of {name}")
        if not (root / "train.json").exists():
            (root / "train.json").write_text("[]")
        (tmp_path / "config.py").write_text(CONVERSATIONS.format(root=root.as_posix(), more=more))
        return run_settings(load_config(tmp_path / "config.py", options))

    return written


def compared(then, now):
    checkpoint = {"optimizer": {}, "meta": {"iter": 0, "seed": None, "settings": then}}
    return compare_settings(checkpoint, now, "iter_0.pth")


def test_files_and_folders_that_have_moved_are_the_same(conversations):
    assert compared(conversations("a"), conversations("b")) == ([], [])
    assert compared(conversations("a"), conversations("a", **{"model.module.generation.num_beams": 1})) == ([], [])


@pytest.mark.parametrize(
    "options",
    [
        {"model.type": "mmgpt.LoRAModel"},
        {"model.type": "mmgpt.models.lora.LoRAModel"},
        {"model.module.frozen": ("vision", "language")},
        {"model.module.language.precision": None},
        {"model.train_tokens": []},
        {"model.train_tokens": {}, "train_dataloader.dataset.visual.0.weight": None},
        {"train_dataloader.dataset.visual.0.type": "mmgpt.InstructionDataset"},
        {"train_dataloader.sampler": None},
        {"train_dataloader.dataset.visual.0.name": None},
    ],
)
def test_other_spellings_of_equal_settings_are_equal(conversations, options):
    assert compared(conversations(), conversations(**options)) == ([], [])
    assert compared(conversations(**options), conversations()) == ([], [])


def test_cached_features_may_be_turned_on_and_off(conversations, tmp_path):
    pixels = "[dict(type='LoadImages'), dict(type='PrepareImages', size=28)]"
    steps = "steps = [*{}, dict(type='FormatPrompt', template='short'), '${{tokenize}}']"
    opened = conversations(more=steps.format(pixels))
    cached = conversations(more=steps.format(f"[dict(type='LoadFeatures', cache='features', steps={pixels})]"))
    assert compared(opened, cached) == compared(cached, opened) == ([], [])
    other = conversations(more=steps.format(pixels.replace("28", "56")))
    with pytest.raises(ValueError, match=r"pipeline\[1\].size and 1 more: 28 then, 56 now"):
        compared(cached, other)


def test_empty_values_differ_from_defaults_that_are_not_empty(conversations):
    with pytest.raises(ValueError, match="model.module.frozen: None then, \\[\\] now"):
        compared(conversations(), conversations(**{"model.module.frozen": []}))
    seed = "train_dataloader.dataset.visual.0.seed"  # without one, that of the joint dataset
    with pytest.raises(ValueError, match="visual.0..seed: None then, 0 now"):
        compared(conversations(), conversations(**{seed: 0}))


def test_defaults_of_the_optimizer_may_be_written_out(run):
    run(max_epochs=1)
    resumed, _ = run(resume=True, max_epochs=1, **{"optim_wrapper.optimizer.amsgrad": False})
    assert "Resumed" not in log_of(resumed)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("base/model.safetensors", r"model.module.language.path: '(.*)/base' then, '\1/base, with other content' now"),
        (
            "base/tokenizer.json",
            r"visual\[0\].pipeline\[1\].tokenizer and 1 more: '(.*)/base' then, '\1/base, with other",
        ),
        (
            "flamingo.safetensors",
            r"model.module.weights: '(.*)flamingo.safetensors' then, '\1.*, with other content' now",
        ),
        ("train.json", r"visual\[0\].ann_file and 1 more: 'train.json' then, 'train.json, with other content' now"),
    ],
)
def test_files_with_other_content_are_refused(conversations, tmp_path, name, line):
    then = conversations("a")
    (tmp_path / "a" / name).write_text("another")
    with pytest.raises(ValueError, match=line):
        compared(then, conversations("a"))
    conversations("b")
    (tmp_path / "b" / name).write_text("another")
    with pytest.raises(ValueError, match=name.partition("/")[2] and "path|tokenizer" or name):
        compared(then, conversations("b"))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"model.lora.lora_alpha": 16}, "model.lora.lora_alpha: 8 then, 16 now"),
        ({"model.lora.r": 8}, "model.lora.r: 4 then, 8 now"),
        (
            {"model.lora.target_modules": ["q_proj"]},
            "model.lora.target_modules: ['q_proj', 'v_proj'] then, ['q_proj'] now",
        ),
        ({"model.module.language.dtype": "float32"}, "model.module.language.dtype: 'bfloat16' then, 'float32' now"),
        ({"model.module.language.precision": "int4"}, "model.module.language.precision: None then, 'int4' now"),
        ({"model.module.image_attention": "next"}, "model.module.image_attention: 'latest' then, 'next' now"),
        ({"model.module.gated.every_n_layers": 2}, "model.module.gated.every_n_layers: 4 then, 2 now"),
        ({"model.module.frozen": ["language"]}, "model.module.frozen: None then, ['language'] now"),
        ({"model.train_tokens": ["<image>"]}, "model.train_tokens: None then, ['<image>'] now"),
        ({"tokenize.max_length": 32}, "pipeline[1].max_length and 1 more: 64 then, 32 now"),
        ({"steps.0.template": "instruction"}, "pipeline[0].template and 1 more: 'short' then, 'instruction' now"),
        (
            {"train_dataloader.dataset.visual.0.weight": 2},
            "train_dataloader.dataset.visual[0].weight: None then, 2 now",
        ),
        ({"train_dataloader.dataset.visual.0.data_prefix.img": "val"}, "data_prefix.img: 'images' then, 'val' now"),
        ({"train_dataloader.collate_fn.row_length": 64}, "train_dataloader.collate_fn.row_length: None then, 64 now"),
        (
            {"train_dataloader.dataset.language": []},
            "train_dataloader.dataset.language: [{'type': 'InstructionDataset'",
        ),
    ],
)
def test_changed_model_and_data_settings_are_refused_by_name(conversations, options, line):
    with pytest.raises(ValueError, match="another run") as refused:
        compared(conversations(), conversations(**options))
    assert line in str(refused.value)


def test_files_are_fingerprinted_once_per_run(run, monkeypatch):
    """Fingerprints of large files take time on a network disk."""
    run(max_epochs=1)
    calls, look = [], resume.fingerprints
    monkeypatch.setattr(resume, "fingerprints", lambda part: (calls.append(1), look(part))[1])
    run(resume=True, max_epochs=2)
    assert calls == [1]


def test_another_number_of_processes_is_refused(conversations):
    then = conversations()
    then["config"]["processes"] = 8
    with pytest.raises(ValueError, match="processes: 8 then, 1 now"):
        compared(then, conversations())


def test_two_processes_refuse_together(tmp_path):
    assert train_on_two(tmp_path, "", "--cfg-options", "max_epochs=1").returncode == 0
    done = train_on_two(tmp_path, "", "--resume", "--cfg-options", "seed=4", timeout=120)
    assert done.returncode == 1
    assert "randomness.seed: 0 then, 4 now" in done.stderr
    more = train_on_two(tmp_path, "", "--resume", "--cfg-options", "max_epochs=2", timeout=120)
    assert more.returncode == 0
    assert "train_cfg.max_epochs: 1 then, 2 now" in more.stdout + more.stderr


def test_processes_that_see_different_work_directories_refuse_together(tmp_path):
    """On a machine that does not share the disk, no checkpoint is found."""
    assert train_on_two(tmp_path, "", "--cfg-options", "max_epochs=1").returncode == 0
    alone = "import os\nresume = os.environ.get('RANK') == '0'\n"
    done = train_on_two(tmp_path, alone, "--cfg-options", "max_epochs=2", timeout=60)
    assert done.returncode == 1
    assert "the processes would start from different checkpoints" in done.stderr
    assert "process 0: resume=True, load_from=" in done.stderr
    assert "process 1: resume=False, load_from=None" in done.stderr
