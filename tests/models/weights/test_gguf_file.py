"""GGUF files as Hugging Face folders: weights, settings, tokenizers, and what is refused."""

import sys

import pytest
import sentencepiece
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from mmgpt.models.language import load_language_model
from mmgpt.models.sentencepiece_file import PROBES
from mmgpt.models.tokenizer import load_tokenizer
from mmgpt.models.weights.gguf_file import LLAMA3_ROPE, SPLITS, WORDS, convert_gguf
from tests.helpers.tokenizer_folders import CORPUS

pytest.importorskip("gguf", reason="gguf is not installed (requirements/gguf.txt)")
from tests.helpers.gguf_files import byte_level_metadata, sentencepiece_metadata, write_gguf  # noqa: E402

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
NAMED = {
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 0,
    "tokenizer.ggml.padding_token_id": 2,
    "tokenizer.ggml.add_bos_token": False,
    "tokenizer.chat_template": TEMPLATE,
}


def byte_level(split="smollm"):
    """A byte-level BPE with one of the known ways to split texts."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=split == "llama-bpe"))
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split in ("gpt-2", "smollm"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([step for step in (SPLITS[split], bytes_only) if step])
    tokenizer.normalizer = normalizers.NFC() if split == "qwen2" else None
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def random_model(family="llama", **changes):
    sizes = dict(
        vocab_size=byte_level().get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=256,
        initializer_range=0.2,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**sizes, **changes})).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            torch.nn.init.normal_(parameter, mean=0.5, std=0.2)
    return model


@torch.no_grad()
def logits(model):
    return model(torch.arange(3, 120)[None]).logits


@pytest.fixture
def converted(tmp_path):
    """A function that writes a model as a GGUF file, and converts it into a folder."""

    def convert(model, metadata=None, dtype="float32", **options):
        metadata = {**byte_level_metadata(byte_level(), "smollm"), **NAMED, **(metadata or {})}
        write_gguf(tmp_path / "model.gguf", model, metadata, **options)
        convert_gguf(tmp_path / "model.gguf", tmp_path / "folder", dtype)
        return tmp_path / "folder"

    return convert


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {}),
        ("llama", dict(tie_word_embeddings=False)),
        ("qwen2", {}),
        ("qwen3", dict(head_dim=128)),  # transformers takes its default, and no other from a file
        ("gemma3_text", dict(num_hidden_layers=7, sliding_window=64, query_pre_attn_scalar=256)),
    ],
)
def test_the_model_of_a_folder_equals_the_one_in_the_file(converted, family, changes):
    model = random_model(family, **changes)
    folder = converted(model)
    again = load_language_model(str(folder)).eval()
    assert type(again) is type(model)
    assert torch.equal(logits(again), logits(model))
    assert again.config.tie_word_embeddings == model.config.tie_word_embeddings
    assert (again.config.eos_token_id, GenerationConfig.from_pretrained(folder).eos_token_id) == (2, 2)


def test_quantized_weights_are_dequantized_into_the_dtype(converted):
    model = random_model()
    folder = converted(model, dtype="bfloat16", quantized=True)
    again = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    for name, value in model.state_dict().items():
        stored = again.state_dict()[name]
        assert stored.dtype == torch.bfloat16
        # Half a step of 127 in each block of 32 values, and the rounding to bfloat16.
        assert (stored.float() - value).abs().max() <= value.abs().max() * (0.5 / 127 + 2**-8), name


@pytest.mark.parametrize("split", SPLITS)
def test_a_byte_level_tokenizer_equals_the_one_in_the_file(converted, split):
    raw = byte_level(split)
    folder = converted(random_model(vocab_size=raw.get_vocab_size()), byte_level_metadata(raw, split))
    ours, theirs = load_tokenizer(str(folder)), AutoTokenizer.from_pretrained(folder)
    for text in (*PROBES, "the year 12345, Is it?", "e\u0301"):
        ids = raw.encode(text).ids
        assert ours.encode(text, add_special_tokens=False) == ids, text
        assert theirs.encode(text) == ids, text
    for tokenizer in (ours, theirs):
        assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token) == (*SPECIAL[1:], SPECIAL[0])
        assert tokenizer.chat_template == TEMPLATE
    assert ours.encode("<|im_end|>", split_special_tokens=True, add_special_tokens=False) != [2]


@pytest.mark.parametrize(
    ("split", "pieces"),
    [
        ("gpt-2", ["It", "'s", "Ġ1234", ",", "ĠOK", "!!", "Ċ", "Ċ", "x"]),
        ("smollm", ["It", "'s", "Ġ", "1", "2", "3", "4", ",", "ĠOK", "!!", "Ċ", "Ċ", "x"]),
        ("llama-bpe", ["It", "'s", "Ġ", "123", "4", ",", "ĠOK", "!!ĊĊ", "x"]),
        ("qwen2", ["It", "'s", "Ġ", "1", "2", "3", "4", ",", "ĠOK", "!!ĊĊ", "x"]),
    ],
)
def test_texts_are_split_as_the_named_tokenizers_do(split, pieces):
    words = byte_level(split).pre_tokenizer.pre_tokenize_str("It's 1234, OK!!\n\nx")
    assert [piece for piece, _ in words] == pieces
    assert split != "qwen2" or WORDS.replace("DIGITS", r"\p{N}") == PRETOKENIZE_REGEX


@pytest.mark.parametrize(
    ("arguments", "add_bos_token"),
    [
        ({}, None),
        ({}, False),
        (
            dict(
                add_dummy_prefix=False,
                user_defined_symbols=["<start_of_turn>", "\n\n", "▁▁", "▁▁▁"],
                pad_id=0,
                eos_id=1,
            )
            | dict(bos_id=2, unk_id=3),
            True,
        ),
    ],
    ids=["llama", "without a start", "gemma"],
)
def test_a_sentencepiece_tokenizer_equals_the_one_in_the_file(converted, tmp_path, arguments, add_bos_token):
    common = dict(model_type="bpe", vocab_size=400, byte_fallback=True, split_digits=True, minloglevel=2)
    common |= dict(remove_extra_whitespaces=False, normalization_rule_name="identity")
    prefix = str(tmp_path / "sentencepiece")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_prefix=prefix, **{**common, **arguments}
    )
    metadata = sentencepiece_metadata(tmp_path / "sentencepiece.model")
    absent = ("merges", "padding_token_id")
    metadata |= {**{f"tokenizer.ggml.{name}": None for name in absent}, "tokenizer.chat_template": None}
    metadata["tokenizer.ggml.add_bos_token"] = add_bos_token
    folder = converted(random_model(vocab_size=len(metadata["tokenizer.ggml.tokens"])), metadata)
    starts = add_bos_token is not False  # llama.cpp's default for sentencepiece
    tokenizer, raw = load_tokenizer(str(folder)), sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")
    for text in PROBES:
        assert tokenizer.encode(text, add_special_tokens=False) == raw.encode(text), text
        assert tokenizer.decode(raw.encode(text)) == text
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (raw.bos_id(), raw.eos_id())
    for loaded in (tokenizer, AutoTokenizer.from_pretrained(folder)):
        assert loaded.encode("the") == [raw.bos_id()] * starts + raw.encode("the")


def test_a_start_token_is_put_where_the_file_asks_for_it(converted):
    folder = str(converted(random_model(), {"tokenizer.ggml.add_bos_token": True}))
    assert AutoTokenizer.from_pretrained(folder).encode("the")[0] == load_tokenizer(folder).encode("the")[0] == 1


def test_all_ends_of_a_turn_are_in_the_folder(converted):
    folder = converted(random_model(), {"tokenizer.ggml.eot_token_id": 0})
    assert GenerationConfig.from_pretrained(folder).eos_token_id == [2, 0]
    assert load_tokenizer(str(folder)).eos_token_id == 2


def scaled_llama(original=8192):
    rope = dict(rope_type="llama3", rope_theta=1e6, factor=32.0, **LLAMA3_ROPE)
    rope["original_max_position_embeddings"] = original
    model = random_model(rope_parameters=rope, max_position_embeddings=16384)
    plain = 1e6 ** -(torch.arange(0, 8, 2) / 8)
    return model, plain / model.model.rotary_emb.inv_freq


def test_the_scaling_of_llama_3_is_found_from_its_tensor(converted):
    model, factors = scaled_llama()
    torch.testing.assert_close(factors[[0, 1, 3]], torch.tensor([1.0, 1.0, 32.0]))  # the third is between
    assert 1.5 < factors[2] < 31
    again = load_language_model(str(converted(model, tensors={"rope_freqs.weight": factors})))
    assert torch.equal(logits(again), logits(model))
    assert not torch.equal(logits(again), logits(random_model()))


def test_another_scaling_is_refused(converted):
    model, factors = scaled_llama(original=1024)
    with pytest.raises(ValueError, match="rope_freqs.weight is not the scaling of Llama 3"):
        converted(model, tensors={"rope_freqs.weight": factors})


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"llama.rope.scaling.type": "yarn"}, "does not compute llama.rope.scaling.type='yarn'"),
        ({"llama.expert_count": 4}, "does not compute llama.expert_count=4"),
        ({"llama.attention.key_length": 16}, "does not compute llama.attention.key_length=16"),
        ({"tokenizer.ggml.merges": None}, "its tokenizer has no tokenizer.ggml.merges"),
        ({"tokenizer.ggml.merges": ["zz yy"]}, "its tokenizer cannot be converted: .*zz"),
        ({"tokenizer.ggml.pre": "deepseek-llm"}, "tokenizer.ggml.pre='deepseek-llm' is not known, only gpt-2, smollm"),
        ({"tokenizer.ggml.model": "t5"}, "tokenizer.ggml.model='t5' is not converted, only gpt2, llama"),
        ({"tokenizer.ggml.eos_token_id": 9999}, "tokenizer.ggml.eos_token_id=9999, and there are 320 tokens"),
        ({"tokenizer.ggml.eos_token_id": None}, "not a whole language model: it has no tokenizer.ggml.eos_token_id"),
        ({"split.count": 2}, "is one of 2 parts"),
    ],
)
def test_a_file_that_cannot_be_converted_is_refused_by_name(converted, tmp_path, metadata, message):
    with pytest.raises(ValueError, match=message):
        converted(random_model(), metadata)
    assert not (tmp_path / "folder").exists()


def test_a_tensor_that_the_model_does_not_have_is_refused(converted):
    with pytest.raises(ValueError, match=r"has 28,\d+ weights, and a LlamaForCausalLM of its settings 28,\d+"):
        converted(random_model(), tensors={"blk.0.attn_q.bias": torch.zeros(32)})


def test_another_architecture_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("mmgpt.models.weights.gguf_file.ARCHITECTURES", ("qwen2",))
    write_gguf(tmp_path / "model.gguf", random_model(), {**byte_level_metadata(byte_level(), "smollm"), **NAMED})
    with pytest.raises(ValueError, match="general.architecture='llama' is not converted, only qwen2"):
        convert_gguf(tmp_path / "model.gguf", tmp_path / "folder")


def test_an_existing_folder_stays(converted, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="exists already"):
        converted(random_model())
    assert not any((tmp_path / "folder").iterdir())


def test_another_file_and_a_missing_one(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"no GGUF file" * 100)
    with pytest.raises(ValueError, match="model.gguf cannot be read as a GGUF file"):
        convert_gguf(tmp_path / "model.gguf", tmp_path / "folder")
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none.gguf"):
        convert_gguf(tmp_path / "none.gguf", tmp_path / "folder")


def test_without_the_package_the_requirements_are_named(tmp_path, monkeypatch):
    (tmp_path / "model.gguf").touch()
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ImportError, match="requirements/gguf.txt"):
        convert_gguf(tmp_path / "model.gguf", tmp_path / "folder")
