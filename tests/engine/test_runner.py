"""The Runner of tools/train.py; with several processes see tests/tools/test_sharded_train.py."""

import pytest
from mmengine.config import Config

from mmgpt.engine.runner import MMGPTRunner
from tests.helpers.launching import logs


def test_the_config_is_in_the_log_but_not_on_the_screen(make_runner, tmp_path, capsys):
    cfg = make_runner().cfg
    capsys.readouterr()
    cfg = Config({**cfg.to_dict(), "experiment_name": tmp_path.name})
    MMGPTRunner.from_cfg(cfg).logger.info("shown")
    output = capsys.readouterr().out
    assert "shown" in output
    assert "optim_wrapper" not in output
    assert "System environment" not in output
    assert "optim_wrapper" in logs(tmp_path / "run")


@pytest.mark.parametrize("value", [True, dict(backend="aot_eager")])
def test_layers_are_compiled_for_training(make_runner, tmp_path, monkeypatch, value):
    calls = []
    monkeypatch.setattr("mmgpt.engine.hooks.compile.compile_layers", lambda model, options: calls.append(options))
    cfg = make_runner(max_epochs=1).cfg
    runner = MMGPTRunner.from_cfg(Config({**cfg.to_dict(), "experiment_name": tmp_path.name, "compile": value}))
    plain = runner.model.train_step
    runner.train()
    assert calls == [value]
    assert runner.model.train_step.__wrapped__ == plain
