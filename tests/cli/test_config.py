import math
from copy import deepcopy
from functools import partial
from pathlib import Path

import pytest
from mmengine.config import Config

from mmgpt.cli import load_config
from mmgpt.cli.config import plain_config, without_caches
from mmgpt.compat import names
from mmgpt.datasets.transforms import LoadFeatures

CONFIG = """
name = 'a'
folder = '${name}/b'
sizes = dict(width=4)
model = dict(path='${folder}', sizes='${sizes}', many=['${folder}/x', ('${name}', 1)], text='kept $ {name} $name')
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "experiment.py"
    path.write_text(CONFIG)
    return path


def test_variables_reach_every_place(config):
    model = load_config(config).model
    assert model.path == "a/b"
    assert model.sizes == {"width": 4}
    assert model.many == ["a/b/x", ("a", 1)]
    assert model.text == "kept $ {name} $name"


def test_options_are_merged_before_variables_are_replaced(config):
    cfg = load_config(config, {"name": "z", "sizes.width": 8})
    assert cfg.folder == cfg.model.path == "z/b"
    assert cfg.model.sizes.width == 8


@pytest.mark.parametrize("option", ["model.sizes.width", "model.part.sizes.width", "many.1.sizes.width"])
def test_option_follows_the_variables_on_its_way(config, option):
    config.write_text(
        CONFIG + "part = dict(sizes='${sizes}')\nmodel['part'] = '${part}'\nmany = [1, dict(sizes='${sizes}')]"
    )
    cfg = load_config(config, {option: 8})
    assert cfg.sizes.width == cfg.model.sizes.width == cfg.model.part.sizes.width == cfg.many[1].sizes.width == 8
    with pytest.raises(KeyError, match="the config has no 'sizs'.*did you mean 'sizes'"):
        load_config(config, {"sizs.width": 8})


def test_option_through_a_wrong_variable(config):
    config.write_text(CONFIG + "model = dict(lora='${lora}', a='${b}')\nb = '${c}'\nc = '${b}'")
    with pytest.raises(KeyError, match="--cfg-options lora.r: the config has no 'lora'"):
        load_config(config, {"model.lora.r": 8})
    with pytest.raises(ValueError, match="b -> c -> b refer to each other in a circle"):
        load_config(config, {"model.a.r": 8})


def test_a_name_made_of_names_is_refused(config):
    config.write_text(CONFIG + "\nchoice = 'b'\nb_sizes = dict(width=5)\nmodel['chosen'] = '${${choice}_sizes}'")
    with pytest.raises(ValueError, match="model.chosen='.{.{choice}_sizes}': a name .* cannot be made of other names"):
        load_config(config)


FILE = "weights = dict(path='${folder}/w.pt', source='from there')\nmodel['weights'] = '${weights}'\n"


def test_a_file_with_its_source_becomes_its_path(config, tmp_path):
    config.write_text(CONFIG + FILE)
    cfg = load_config(config)
    assert cfg.weights == cfg.model.weights == "a/b/w.pt"
    assert cfg.sources == {"a/b/w.pt": "from there"}
    moved = load_config(config, {"model.weights": "elsewhere.pt", "weights": "mine.pt"})
    assert moved.model.weights == "elsewhere.pt"
    assert moved.sources == {"mine.pt": "from there"}
    child = tmp_path / "child.py"
    child.write_text("_base_ = './experiment.py'\nweights = 'own.pt'\n")
    assert load_config(child).model.weights == "own.pt"
    assert "sources" not in load_config(child)
    cfg.dump(tmp_path / "dumped.py")
    assert load_config(tmp_path / "dumped.py").to_dict() == cfg.to_dict()


def test_two_sources_of_one_path_are_both_told(config):
    config.write_text("a = [dict(path='coco', source='train'), dict(path='coco', source='val')]\nb = '${a}'")
    assert load_config(config).sources == {"coco": "train; val"}


def test_sources_as_an_earlier_release_has_them(config, monkeypatch):
    warnings = []
    monkeypatch.setattr(names, "print_log", lambda text, *_: warnings.append(text))
    config.write_text(CONFIG + "needed = {'${folder}/w': 'w, from there'}\nneeded_data = dict(x='x, from here')")
    cfg = load_config(config)
    assert cfg.sources == {"a/b/w": "w, from there", "x": "x, from here"}
    assert not {"needed", "needed_data"} & set(cfg)
    assert "'needed' is 'dict(path=..., source=...)' now, 'needed_data' is" in warnings[0]


def test_names_with_an_underscore_belong_to_their_file(config):
    config.write_text(CONFIG + "_own = dict(a='${name}')\nmodel['own'] = '${_own}'")
    cfg = load_config(config)
    assert cfg.model.own == {"a": "a"}
    assert "_own" not in cfg


def test_choices_of_a_name_are_those_of_its_kind(config):
    config.write_text(CONFIG + "\neval_a = 1\neval_b = 2\nmodel['x'] = '${eval_c}'")
    with pytest.raises(KeyError, match='Choices: eval_a, eval_b"'):
        load_config(config)


def test_inheriting_config_sets_one_name(config, tmp_path):
    child = tmp_path / "child.py"
    child.write_text("_base_ = './experiment.py'\nname = 'c'\n")
    assert load_config(child).model.path == "c/b"


def test_value_of_a_variable_is_not_shared(config):
    cfg = load_config(config)
    cfg.model.sizes.width = 5
    assert cfg.sizes.width == 4


def test_config_can_be_dumped_and_read_again(config, tmp_path):
    cfg = load_config(config)
    cfg.dump(tmp_path / "dumped.py")
    assert load_config(tmp_path / "dumped.py").to_dict() == cfg.to_dict()
    assert isinstance(cfg, Config)
    assert cfg.filename == str(config)


def test_a_config_is_written_down_without_yapf(config, monkeypatch):
    # MMEngine takes it when it is imported, onedl-mmengine when it writes.
    for place in ("mmengine.config.config", "yapf.yapflib.yapf_api"):
        monkeypatch.setattr(f"{place}.FormatCode", lambda *_, **__: pytest.fail("seconds for each copy"), raising=False)
    assert "name=" in deepcopy(load_config(config)).pretty_text


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        ("model = dict(path='${nam}')", KeyError, ["model.path", "${nam}", "did you mean 'name'"]),
        ("name = '${folder}'", ValueError, ["circle", "folder -> name"]),
    ],
)
def test_wrong_variables(config, more, error, words):
    config.write_text(CONFIG + more)
    with pytest.raises(error) as raised:
        load_config(config)
    for word in words:
        assert word in str(raised.value)


def test_unknown_option_and_unknown_file(config):
    with pytest.raises(KeyError, match="--cfg-options nmae.*did you mean 'name'"):
        load_config(config, {"nmae": 1})
    with pytest.raises(FileNotFoundError, match="experimnet.py.*did you mean 'experiment.py'"):
        load_config(config.with_name("experimnet.py"))
    assert load_config(config, {"load_from": "x"}).load_from == "x"


def test_a_dict_as_an_option(config):
    assert load_config(config, {"sizes": {"depth": 2}}).model.sizes == {"width": 4, "depth": 2}
    assert load_config(config, {"name": {"a": 1}}).name == {"a": 1}
    with pytest.raises(ValueError, match="--cfg-options name.a"):
        load_config(config, {"name.a": 1})
    with pytest.raises(ValueError, match="--cfg-options model.many.7"):
        load_config(config, {"model.many.7": 1})


class Opaque:
    """An object whose text has its address."""


def test_plain_config_is_the_same_in_every_process():
    part = dict(
        a=(1, Path("x")),
        some={"b", "a"},
        type=Opaque,
        step=partial(load_config, options={"b": 1}),
        thing=Opaque(),
        of=math.sqrt,
    )
    assert plain_config(part) == {
        "a": [1, "x"],
        "some": ["a", "b"],
        "type": f"{__name__}.Opaque",
        "step": {"partial": "mmgpt.cli.config.load_config", "args": [], "options": {"b": 1}},
        "thing": f"{__name__}.Opaque",
        "of": "math.sqrt",
    }


@pytest.mark.parametrize("kind", ["LoadFeatures", "mmgpt.LoadFeatures", LoadFeatures])
def test_cached_features_are_replaced_by_the_steps_that_they_were_computed_with(kind):
    steps = [{"type": "LoadImages"}, {"type": "PrepareImages", "size": 32}]
    pipeline = ({"type": kind, "cache": "folder", "steps": steps}, {"type": int})
    config = {"dataset": {"pipeline": pipeline, "weight": 2}}
    assert without_caches(config) == {"dataset": {"pipeline": [*steps, {"type": int}], "weight": 2}}
