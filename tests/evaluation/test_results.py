from mmgpt.evaluation.results import evaluation_settings


def test_settings_change_with_the_weights_of_the_base(tmp_path):
    """An evaluation that was cut must not go on with it."""
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    model = dict(type="Flamingo", language=dict(path=str(tmp_path)))
    cfg = dict(model=model, test_dataloader=dict(dataset={}, batch_size=1), test_evaluator={}, test_cfg={})
    before = evaluation_settings(cfg, None, {})
    assert evaluation_settings(cfg, None, {}) == before
    (tmp_path / "model.safetensors").write_text("[]")
    after = evaluation_settings(cfg, None, {})
    assert after["model_weights"].keys() == {"model.language.path"}
    assert {key for key in after if after[key] != before[key]} == {"model_weights"}
