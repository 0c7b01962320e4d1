from mmgpt.evaluation.results import evaluation_settings
from mmgpt.models.tokenizer import load_tokenizer
from tests.helpers.chat_templates import chat_folder


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


def test_settings_hold_the_text_of_a_chat_template(tmp_path):
    tokenizer = load_tokenizer(chat_folder("gemma", tmp_path / "base"))
    cfg = dict(model={}, test_dataloader=dict(dataset={}, batch_size=1), test_evaluator={}, test_cfg={})
    settings = evaluation_settings(dict(cfg, question_template="chat"), None, {}, tokenizer)
    assert settings["prompt_template"] == tokenizer.chat_template
