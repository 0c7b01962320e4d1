"""LoRA around the model: what is trained, and that it changes nothing before training."""

from dataclasses import fields

import pytest
import torch
from peft import LoraConfig
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from mmgpt.models import LoRAModel
from mmgpt.models.lora import CHOICES, REFUSED, find_targets, lora_config
from mmgpt.models.weights.names import component_of
from mmgpt.registry import MODELS
from tests.models.test_flamingo import batch
from tests.models.test_language import as_untied

LORA = dict(
    r=4,
    lora_alpha=4,
    target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "to_q", "to_kv", "to_out", "ff.1", "ff.3"],
    exclude_modules=r"(vision|perceiver)\..*",
)


@pytest.fixture
def config(tiny_flamingo_config):
    return dict(type="LoRAModel", module=tiny_flamingo_config, lora=LORA)


def trained(model):
    return [name for name, p in model.named_parameters() if p.requires_grad]


def test_only_lora_is_trained_in_language_model_and_gated_blocks(config):
    model = MODELS.build(config)
    names = trained(model)
    assert names
    assert all("lora_" in name and ".language." in name for name in names)
    for layer in (
        "self_attn.q_proj",
        "gated.attn.to_q",
        "gated.attn.to_kv",
        "gated.attn.to_out",
        "gated.ff.1",
        "gated.ff.3",
    ):
        assert any(f".{layer}.lora_A" in name for name in names), layer
    rank = next(p for name, p in model.named_parameters() if "lora_A" in name).shape[0]
    assert rank == 4


def test_untrained_lora_changes_nothing_and_trained_lora_can_be_disabled(config):
    torch.manual_seed(0)
    model = MODELS.build(config).eval()
    data = batch(model)
    before = model(**data, mode="tensor")
    with model.disabled():
        assert torch.equal(model(**data, mode="tensor"), before)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    assert not torch.allclose(model(**data, mode="tensor"), before)
    with model.disabled():
        assert torch.equal(model(**data, mode="tensor"), before)


def test_every_lora_b_gets_a_gradient(config):
    model = MODELS.build(config).train()
    sum(model(**batch(model), mode="loss").values()).backward()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
    assert not model.module.vision.training


def test_new_embedding_rows_are_trained_on_demand(config):
    model = MODELS.build(dict(config, train_tokens=["<image>"]))
    names = [name for name in trained(model) if "lora_" not in name]
    assert len(names) == 1
    assert "embed_tokens" in names[0]
    delta = dict(model.named_parameters())[names[0]]
    assert delta.shape == (1, 32)
    sum(model(**batch(model), mode="loss").values()).backward()
    assert delta.grad.abs().sum() > 0


def on(config, folder):
    language = dict(config["module"], language=dict(path=folder))
    return dict(config, module=language, lora=dict(r=4, target_modules=["to_q"]), train_tokens=["<image>"])


@pytest.mark.parametrize("tiny_v2", ["gpt_neox"], indirect=True)
def test_the_embedding_is_found_under_its_familys_name(config, tiny_v2):
    names = [name for name in trained(MODELS.build(on(config, tiny_v2))) if "lora_" not in name]
    assert len(names) == 1
    assert "embed_in" in names[0]


@pytest.mark.parametrize("tiny_v2", ["mpt"], indirect=True)
def test_rows_of_a_tied_embedding_are_refused(config, tiny_v2):
    with pytest.raises(ValueError, match="tied to its output head"):
        MODELS.build(on(config, tiny_v2))


def test_unknown_token_is_an_error(config):
    with pytest.raises(ValueError, match="does not know \\['<video>'\\]"):
        MODELS.build(dict(config, train_tokens=["<video>"]))


def test_fields_of_peft_are_passed_on(config):
    model = MODELS.build(dict(config, lora=dict(LORA, use_dora=True)))
    assert any("lora_magnitude_vector" in name for name in trained(model))


@pytest.fixture
def no_build(monkeypatch):
    """Nothing is loaded before the fields of `lora` are known to work."""
    monkeypatch.setattr(MODELS, "build", lambda config: pytest.fail("the model was built first"))


# Values of the fields that are refused, as a user would write them.
REFUSED_VALUES = dict(
    task_type="CAUSAL_LM",
    inference_mode=True,
    modules_to_save=["perceiver"],
    trainable_token_indices=[3],
    ensure_weight_tying=True,
    layer_replication=[[0, 4], [2, 4]],
    loftq_config=dict(loftq_bits=4),
    eva_config=dict(rho=1.0),
    corda_config=dict(corda_method="kpm"),
    lora_ga_config=dict(direction="ArBr"),
    kasa_config=dict(beta=1e-4),
    monteclora_config=dict(num_samples=2),
    alora_invocation_tokens=[5],
    arrow_config=dict(top_k=1),
    use_qalora=True,
    qalora_group_size=8,
    megatron_config=dict(hidden_size=8),
    megatron_core="megatron",
    runtime_config=dict(ephemeral_gpu_offload=True),
)


@pytest.mark.parametrize("name", REFUSED)
def test_a_field_that_does_not_work_is_refused_before_anything_is_loaded(no_build, name):
    with pytest.raises(ValueError, match=f"lora.{name} is not supported: "):
        LoRAModel(module={}, lora=dict(LORA, **{name: REFUSED_VALUES[name]}))


@pytest.mark.parametrize(
    "value", ["pissa", "pissa_niter_4", "olora", "eva", "corda", "loftq", "lora_ga", "gausian", None]
)
def test_an_initialisation_that_changes_the_base_is_refused_before_anything_is_loaded(no_build, value):
    with pytest.raises(
        ValueError, match=r"lora.init_lora_weights=.*choose one of True, False, 'gaussian', 'orthogonal', 'mica'"
    ):
        LoRAModel(module={}, lora=dict(LORA, init_lora_weights=value))


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        (dict(bias="all"), "lora.bias='all': .* choose one of 'none', 'lora_only'"),
        (dict(bias="some"), "lora.bias='some': .* choose one of 'none', 'lora_only'"),
        (dict(init_lora_weights=1), "lora.init_lora_weights=1: "),
        (dict(r=[8]), r"lora.r=\[8\]: give a whole number"),
        (dict(r=8.5), "lora.r=8.5: give a whole number"),
        (dict(lora_alpha=None), "lora.lora_alpha=None: give a number"),
        (dict(rank=4), "lora: peft's LoraConfig has no 'rank'; choose among .*, r, "),
        (
            dict(velora_config=dict(groups=4)),
            "lora.velora_config: peft's VeloraConfig has no 'groups'; choose among init_type, num_",
        ),
        (
            dict(use_bdlora=dict(blocks=4)),
            "lora.use_bdlora: peft's BdLoraConfig has no 'blocks'; choose among match_strict, nblocks",
        ),
        (dict(target_modules=r".*("), "lora.target_modules: .* is not a regular expression"),
        (dict(exclude_modules=r"vision("), "lora.exclude_modules: .* is not a regular expression"),
        (dict(rank_pattern={"q_proj(": 2}), "lora.rank_pattern: .* is not a regular expression"),
    ],
)
def test_other_values_are_refused_before_anything_is_loaded(no_build, lora, message):
    with pytest.raises(ValueError, match=message):
        LoRAModel(module={}, lora=dict(LORA, **lora))


def test_fields_with_their_default_values_are_no_obstacle():
    """As in a copy of peft's adapter_config.json."""
    given = {field.name: getattr(LoraConfig(), field.name) for field in fields(LoraConfig) if field.init}
    config = lora_config({**given, "target_modules": ["q_proj"]})
    assert config.target_modules == {"q_proj"}
    assert set(REFUSED) | set(CHOICES) <= set(given)


TARGETS = [
    (
        dict(target_modules=["query_key_value", "q_proj"]),
        r"target_modules: 'q_proj' matches no module; choose among dense,",
    ),
    (dict(target_modules=["dense", "self_attention"]), "'self_attention' matches no module"),
    (
        dict(target_modules=["attention"]),
        "'attention' takes .*attention, a GPTNeoXAttention, which LoRA does not adapt",
    ),
    (dict(target_modules=r".*\.q_proj"), r"'\.\*\\\\.q_proj' matches no module; choose among"),
    (dict(target_modules="all-linear", exclude_modules=r".*"), "lora adapts no layer"),
    (
        dict(target_modules="all-linear", use_bdlora=dict(target_modules_bd_a=["q_proj"])),
        "target_modules_bd_a: 'q_proj' matches none",
    ),
    (dict(target_modules=["embed_in"], use_bdlora=dict(nblocks=2)), "use_bdlora: only nn.Linear layers"),
    (dict(target_modules=[]), "lora adapts no layer; set its target_modules, and choose among dense"),
    (dict(), "lora adapts no layer; set its target_modules, and choose among dense"),
    (
        dict(target_modules=["c_fc", "dense"]),
        "'c_fc' matches only modules that exclude_modules or layers_to_transform leaves",
    ),
    (dict(target_modules=["dense"], exclude_modules=["q_proj"]), "exclude_modules: 'q_proj' matches no layer"),
    (
        dict(target_modules=["dense"], exclude_modules=["vision"]),
        "exclude_modules: 'vision' matches no layer .* end of",
    ),
    (dict(target_modules=["dense"], exclude_modules=r"visoin\..*"), "exclude_modules: .*visoin.* matches no layer"),
    (dict(target_modules=["dense"], rank_pattern={"dense": 2, "q_proj": 2}), "rank_pattern: 'q_proj' matches none"),
    (dict(target_modules=["dense"], alpha_pattern={"to_q": 2}), "alpha_pattern: 'to_q' matches none"),
    (dict(target_modules=["dense"], layers_to_transform=[1, 4]), "layers_to_transform: no layer 4 has"),
    (dict(target_modules=["dense", "to_q"], layers_to_transform=0), "'to_q' matches only modules that"),
    (
        dict(target_modules=["dense"], layers_to_transform=[1], layers_pattern=["layers", "blocks"]),
        "layers_pattern: 'blocks' is not a list of layers",
    ),
    (dict(target_parameters=["q_proj.weight"]), "target_parameters: 'q_proj.weight' matches no parameter"),
    (dict(target_parameters=["latents"]), "'latents' takes perceiver.latents, outside of the language model"),
    (
        dict(target_modules=["out_proj", "dense"], exclude_modules=None),
        "takes vision.*attn.out_proj, a layer of nn.MultiheadAttention, .* nothing is trained",
    ),
]


@pytest.mark.parametrize("tiny_v2", ["gpt_neox"], indirect=True)
@pytest.mark.parametrize(("lora", "message"), TARGETS)
def test_an_entry_that_reaches_nothing_is_named(tiny_flamingo_config, tiny_v2, lora, message):
    lora = {"exclude_modules": LORA["exclude_modules"], **lora}
    with pytest.raises(ValueError, match=message):
        MODELS.build(dict(type="LoRAModel", module=dict(tiny_flamingo_config, language=dict(path=tiny_v2)), lora=lora))


def test_choices_leave_out_what_would_be_refused(tiny_flamingo_config, tiny_llama, tmp_path):
    folder, _ = as_untied(tiny_llama, tmp_path / "tied", equal=True, tie_word_embeddings=True)
    config = dict(tiny_flamingo_config, language=dict(path=folder))
    with pytest.raises(ValueError, match="'x' matches no module; choose among c_fc, c_proj, conv1, down_proj") as error:
        MODELS.build(dict(type="LoRAModel", module=config, lora=dict(target_modules=["x"])))
    assert not any(name in str(error.value) for name in ("lm_head", "embed_tokens", "out_proj"))


@pytest.fixture(params=["llama", "mpt", "gpt2"])
def tied(request, tiny_llama, tiny_flamingo_config, tmp_path_factory):
    """A Flamingo of each family with one table, and the names of its two uses."""
    folder, head = tmp_path_factory.mktemp(request.param) / "model", "lm_head"
    if request.param == "llama":
        as_untied(tiny_llama, folder, equal=True, tie_word_embeddings=True)
        return MODELS.build(dict(tiny_flamingo_config, language=dict(path=str(folder)))), "embed_tokens", head
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    sizes = dict(hidden_size=32, num_hidden_layers=4, num_attention_heads=4, vocab_size=len(tokenizer))
    AutoModelForCausalLM.from_config(AutoConfig.for_model(request.param, **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return MODELS.build(dict(tiny_flamingo_config, language=dict(path=str(folder)))), "wte", head


def test_lora_on_an_embedding_of_positions_is_refused(tiny_llama, tiny_flamingo_config):
    """OPT's takes the attention mask, so that peft's forward of ids failed in the first step."""
    config = dict(model_type="opt", hidden_size=32, ffn_dim=48, word_embed_proj_dim=32, num_hidden_layers=2)
    language = dict(path=tiny_llama, pretrained=False, config=dict(config, num_attention_heads=4))
    model = MODELS.build(dict(tiny_flamingo_config, language=language))
    with pytest.raises(
        ValueError, match=r"lora takes language.*\.embed_positions, an embedding .* other arguments than ids"
    ):
        find_targets(model, LoraConfig(target_modules=["q_proj", "embed_positions"]))


def test_lora_on_a_table_of_two_uses_is_refused(tied):
    model, embedding, head = tied
    exclude = LORA["exclude_modules"]
    for name in (embedding, head):
        for lora in (
            dict(target_modules=["to_q", name]),
            dict(target_modules=rf".*\.(to_q|{name})"),
            dict(target_modules=["to_q"], target_parameters=[f"{name}.weight"]),
        ):
            with pytest.raises(ValueError, match=rf"lora takes language.*\.{name}, but .* are one table"):
                find_targets(model, LoraConfig(exclude_modules=exclude, **lora))


def test_all_linear_means_the_language_model_without_its_head(tied, tiny_flamingo_config, tiny_v2):
    model, _, head = tied
    untied = MODELS.build(dict(tiny_flamingo_config, language=dict(path=tiny_v2)))
    for each in (model, untied):
        names = find_targets(each, LoraConfig(target_modules="all-linear"))
        modules = dict(each.named_modules())
        linear = {
            n for n, m in modules.items() if type(m).__name__ in ("Linear", "Conv1D") and n.startswith("language.")
        }
        assert set(names) == linear - {f"language.model.{head}"}
        assert any(name.endswith("gated.ff.1") for name in names)
        assert len(names) > 20


def test_all_linear_is_left_out_where_exclude_modules_says_so(tiny_flamingo_config):
    lora = dict(r=2, target_modules="all-linear", exclude_modules=["to_kv", "q_proj"])
    names = MODELS.build(dict(type="LoRAModel", module=tiny_flamingo_config, lora=lora)).adapted_layers()
    assert not any(name.endswith(("to_kv", "q_proj", "lm_head")) for name in names)
    assert any(name.endswith("v_proj") for name in names)
    assert not any("vision" in n or "perceiver" in n for n in names)


@pytest.mark.parametrize("tiny_v2", ["gpt_neox"], indirect=True)
def test_trained_biases_are_those_of_the_layers_with_an_update_and_can_be_disabled(config, tiny_v2):
    language = dict(config["module"], language=dict(path=tiny_v2))
    lora = dict(r=2, target_modules=["dense", "to_q"], exclude_modules=LORA["exclude_modules"], bias="lora_only")
    model = MODELS.build(dict(config, module=language, lora=lora)).eval()
    biases = {name for name in trained(model) if ".lora_" not in name}
    assert len(biases) == 4
    assert all(name.endswith("attention.dense.base_layer.bias") for name in biases)
    data = batch(model)
    before = model(**data, mode="tensor")
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter)
    tuned = model(**data, mode="tensor")
    with model.disabled():
        assert torch.equal(model(**data, mode="tensor"), before)
    assert torch.equal(model(**data, mode="tensor"), tuned)
    assert not torch.allclose(tuned, before)


@pytest.mark.parametrize("frozen", [["vision", "language"], []], ids=["frozen", "left to LoRA"])
def test_lora_in_an_image_encoder_is_trained_beside_frozen_weights_and_statistics(config, frozen):
    module = dict(config["module"], frozen=frozen)
    model = MODELS.build(dict(config, module=module, lora=dict(r=2, target_modules=["c_fc", "q_proj"]))).train()
    sum(model(**batch(model), mode="loss").values()).backward()
    updates = [p for name, p in model.named_parameters() if "vision" in name and "lora_B" in name]
    assert len(updates) == 2
    assert all(p.grad.abs().sum() > 0 for p in updates)
    assert not model.module.vision.training


def test_rows_of_an_embedding_that_lora_changes_are_refused(config):
    with pytest.raises(ValueError, match="train_tokens: lora changes all rows of language.*embed_tokens already"):
        MODELS.build(dict(config, lora=dict(r=2, target_modules=["embed_tokens"]), train_tokens=["<image>"]))


def beside_lora(config, *train, lora=None, **module):
    lora = lora or dict(r=2, target_modules="all-linear")
    return dict(config, module={**config["module"], **module}, lora=lora, train=list(train))


def test_components_are_trained_in_full_beside_lora(config):
    """In float32 beside a bfloat16 language model; each gets a gradient, and LoRA leaves them alone."""
    gated = {key: value for key, value in config["module"]["gated"].items() if key != "dtype"}
    language = dict(config["module"]["language"], dtype="bfloat16")
    model = MODELS.build(beside_lora(config, "perceiver", "gated", gated=gated, language=language)).train()
    names = trained(model)
    new = {name for name, _ in model.named_parameters() if "perceiver." in name or ".gated." in name}
    assert new
    assert new == {name for name in names if "lora_" not in name}
    assert {dict(model.named_parameters())[name].dtype for name in names} == {torch.float32}
    assert {p.dtype for name, p in model.named_parameters() if name not in names and ".language." in name} == {
        torch.bfloat16
    }
    assert {name.split(".")[-1] for name in model.adapted_layers()} == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    }
    sum(model(**batch(model), mode="loss").values()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if name in new or "lora_B" in name}
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients.values())
    assert not model.module.vision.training


def test_one_step_moves_each_trained_component_and_nothing_frozen(config):
    model = MODELS.build(beside_lora(config, "vision", "perceiver", "gated")).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    names = set(trained(model))
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2)
    sum(model(**batch(model), mode="loss").values()).backward()
    optimizer.step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert moved <= names
    assert {component_of(name) for name in moved} == {"vision", "perceiver", "gated blocks", "LoRA"}
    assert model.module.vision.training
    assert "vision" not in model.module.frozen


@pytest.mark.parametrize(
    ("train", "changes", "message"),
    [
        (["resampler"], {}, "train: 'resampler' cannot be trained in full.*choose among vision, perceiver, gated"),
        (["language"], {}, "train: 'language' cannot"),
        (["gated"], dict(gated=dict(dtype="bfloat16")), "'gated' is trained in float32.*bfloat16.*gated.dtype"),
        (["vision"], dict(feature_cache="x"), "cached features are of a frozen image encoder only"),
    ],
)
def test_what_cannot_be_trained_in_full_is_refused(config, train, changes, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(beside_lora(config, *train, **changes))


def test_a_component_outside_a_list_is_refused(config):
    with pytest.raises(ValueError, match=r"train='gated' has to be a list of components: train=\['gated'\]"):
        MODELS.build({**beside_lora(config), "train": "gated"})


def test_lora_in_a_component_that_is_trained_in_full_is_refused(config):
    with pytest.raises(ValueError, match=r"lora takes language.*\.gated\.attn\.to_q, a layer of 'gated', which train="):
        MODELS.build(beside_lora(config, "gated", lora=dict(r=2, target_modules=["q_proj", "to_q"])))
    model = MODELS.build(beside_lora(config, "perceiver", lora=LORA))
    assert any(".gated." in name for name in model.adapted_layers())


def test_a_model_with_components_trained_in_full_cannot_be_disabled(config):
    model = MODELS.build(beside_lora(config, "gated"))
    with pytest.raises(ValueError, match=r"train=\['gated'\] changes all weights of these components"):
        with model.disabled():
            pass
