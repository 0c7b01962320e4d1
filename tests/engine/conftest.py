"""Fixtures of the engine's tests: the stub model and data, and runners on them."""

import pytest


@pytest.fixture
def make_runner(tmp_path):
    """A function that builds a Runner on the stub config; every runner gets its own name, as MMEngine keeps them."""
    from mmgpt.cli import load_config
    from mmgpt.engine.runner import MMGPTRunner
    from tests.helpers.stub_training import write_config

    count = 0

    def build(more: str = "", log: str = "", work_dir: str = "run", **options):
        nonlocal count
        count += 1
        cfg = load_config(write_config(tmp_path, str(log), more), options)
        cfg.work_dir, cfg.experiment_name = str(tmp_path / work_dir), f"{tmp_path.name}_{count}"
        return MMGPTRunner.from_cfg(cfg)

    return build
