"""Tiny random models in the layouts of the real ones, made once per test session."""

import json
import logging
from pathlib import Path
from shutil import copytree

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from tests.helpers.chat_pipeline import pipeline
from tests.helpers.published_data import make_data_root

ROOT = Path(__file__).parents[1]
WORDS = "the a red blue circle square what colour shape is Image Instruction Input Response yes no one two".split()


def pytest_collection_modifyitems(items):
    """Skip the tests with the marker `gpu` on a machine without a GPU."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.fixture(autouse=True)
def _one_thread():
    """Two processes with two threads each spin against each other; tiny tensors do not gain from threads."""
    torch.set_num_threads(1)


def tiny_tokenizer() -> Tokenizer:
    """A byte-fallback tokenizer in Llama's layout: <unk> 0, <s> 1, </s> 2, bytes, characters, a few words."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocabulary.update({f"<0x{i:02X}>": 3 + i for i in range(256)})
    merges = []
    for piece in ["▁", *sorted(set("".join(WORDS) + "#:?.,\n"))]:
        vocabulary.setdefault(piece, len(vocabulary))
    for word in WORDS:
        prefix = "▁"
        for letter in word:
            if prefix + letter not in vocabulary:
                vocabulary[prefix + letter] = len(vocabulary)
                merges.append((prefix, letter))
            prefix += letter
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory) -> str:
    """Folder of a random 4-layer Llama of width 32, with its tokenizer, as Hugging Face saves them."""
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("llama")
    raw = tiny_tokenizer()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=raw.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        bos_token_id=1,
        eos_token_id=2,
        max_position_embeddings=256,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session", params=["gpt_neox", "mpt"])
def tiny_v2(request, tmp_path_factory) -> str:
    """Folders of the two families under OpenFlamingo v2, random, with a table of more rows than the tokenizer has."""
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    folder, raw = tmp_path_factory.mktemp(request.param), tiny_tokenizer()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, num_hidden_layers=4, num_attention_heads=4, vocab_size=raw.get_vocab_size() + 40)
    if request.param == "gpt_neox":
        sizes["intermediate_size"] = 64
    config = AutoConfig.for_model(request.param, **sizes, bos_token_id=1, eos_token_id=2, initializer_range=0.2)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory) -> str:
    """Folder of a random open_clip model (image 32, patch 8, width 32: 16 patches), as open_clip saves it."""
    import open_clip

    folder = tmp_path_factory.mktemp("clip")
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 4, "vocab_size": 8, "width": 16, "heads": 1, "layers": 1},
    }
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, str(folder / "open_clip_model.safetensors"))
    return str(folder)


@pytest.fixture(scope="session")
def tiny_timm(tmp_path_factory) -> str:
    """Folder of a random timm model (image 32, patch 8, width 24: 16 patches), as timm saves it."""
    import timm
    from timm.models import save_for_hf

    arguments = dict(depth=2, embed_dim=24, num_heads=2, patch_size=8, img_size=32)
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", **arguments, pretrained_cfg_overlay=dict(crop_pct=0.8))
    folder = tmp_path_factory.mktemp("timm")
    save_for_hf(model, str(folder), model_args=arguments, safe_serialization=True)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_flamingo_config(tiny_llama, tiny_clip) -> dict:
    """Config of a Flamingo of these two, 4 latents of 32, gated blocks before layers 1 and 3, gates open."""
    return dict(
        type="Flamingo",
        vision=dict(type="OpenCLIPVision", path=tiny_clip),
        language=dict(path=tiny_llama),
        perceiver=dict(depth=2, num_latents=4, dim_head=8, heads=2),
        gated=dict(every_n_layers=2, dim_head=8, heads=2, gate_init=0.5),
        generation=dict(max_new_tokens=4),
    )


@pytest.fixture
def data_root(tmp_path):
    """Folder with small files of the eight published sources, laid out as the configs expect them."""
    return make_data_root(tmp_path / "data")


@pytest.fixture
def base_saying(tiny_llama, tmp_path):
    """A function that copies the Llama's folder, with other settings in its files; None takes one, or a file, away."""

    def copied(generation_config=(), config=(), folder="base"):
        path = Path(copytree(tiny_llama, tmp_path / folder))
        for name, changes in {"generation_config.json": generation_config, "config.json": config}.items():
            if changes is None:
                (path / name).unlink()
                continue
            settings = {**json.loads((path / name).read_text()), **dict(changes)}
            (path / name).write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))
        return str(path)

    return copied


@pytest.fixture
def library_warnings():
    """What transformers warns of during the test, as messages."""
    from transformers.utils import logging as library

    class Heard(logging.Handler):
        def emit(self, record):
            messages.append(record.getMessage())

    messages, handler = [], Heard(logging.WARNING)
    library.warning_once.cache_clear()
    library.add_handler(handler)
    yield messages
    library.remove_handler(handler)


@pytest.fixture(scope="session")
def chat_config(tmp_path_factory, tiny_flamingo_config, tiny_llama):
    """A config file as an experiment would have it."""
    model = dict(type="LoRAModel", module=tiny_flamingo_config, lora=dict(r=2, target_modules=["q_proj", "to_q"]))
    path = tmp_path_factory.mktemp("config") / "tiny.py"
    # A chat needs no data, so that missing data files are not an error.
    data = dict(dataset=dict(type="InstructionDataset", ann_file="nowhere/x.json"))
    path.write_text(
        f"default_scope = 'mmgpt'\nlanguage_model = {tiny_llama!r}\nmodel = {model!r}\n"
        f"test_dataloader = {data!r}\nchat_pipeline = {pipeline('${language_model}', 400)!r}\n"
    )
    return str(path)


@pytest.fixture(scope="session")
def chat_checkpoint(tmp_path_factory, chat_config):
    """A checkpoint of that experiment whose LoRA changes the answers."""
    from mmgpt.apis import build_model
    from mmgpt.cli import load_config
    from mmgpt.models.weights.trainable import trainable_state

    model = build_model(load_config(chat_config))
    torch.manual_seed(1)
    state = {name: torch.randn_like(value) for name, value in trainable_state(model).items()}
    path = tmp_path_factory.mktemp("checkpoint") / "latest.pth"
    torch.save(dict(state_dict=state, meta={}, message_hub={}), path)
    return str(path)


@pytest.fixture(scope="session")
def tiny_base():
    """The tiny experiment's config, loaded, on the committed base: trained weights, and LoRA that changes nothing."""
    from mmgpt.cli import load_config

    folder = ROOT / "checkpoints" / "tiny"
    parts = dict(language_model="language", vision_model="vision", flamingo_weights="flamingo.safetensors")
    options = {name: str(folder / part) for name, part in parts.items()}
    return load_config(ROOT / "configs" / "mmgpt" / "tiny_lora_joint.py", options)


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
