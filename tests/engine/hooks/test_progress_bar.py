import re


def test_one_progress_bar_per_run(make_runner, capfd):
    runner = make_runner()
    runner.train()
    runner.test()
    output = capfd.readouterr().err
    assert re.search(r"train: 100%.*12/12.*loss=\d", output)
    assert re.search(r"test: 100%.*6/6", output)
    assert "val" not in output


def test_bar_of_a_validation_and_of_a_resumed_run(make_runner, tmp_path, capfd):
    make_runner(max_epochs=1).train()
    capfd.readouterr()
    more = "val_dataloader = test_dataloader\nval_cfg = dict(type='ValLoop')\nval_evaluator = test_evaluator"
    make_runner(more, resume=True, load_from=str(tmp_path / "run" / "latest.pth")).train()
    output = capfd.readouterr().err
    assert re.search(r"train: +50%.*6/12", output)
    assert re.search(r"val: 100%.*6/6", output)
