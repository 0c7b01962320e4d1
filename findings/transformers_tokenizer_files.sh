#!/usr/bin/env bash
# transformers 5.17.0 (tokenizers 0.23.3, sentencepiece 0.2.3): what a base's files say against what AutoTokenizer makes
# of them. The script trains three tiny tokenizers itself, in the layouts that real folders have.
#
# 1. tokenizer.model and config.json (model_type llama), no tokenizer_config.json: as LLaMA was often converted.
#    Expected: the ids of sentencepiece itself, which puts a space in front of a text: "the" is one piece, "▁the".
#    Seen: a TokenizersBackend without that space, so that the first word of each text is spelt in other pieces; and
#    nothing is put in front (the model of the file has <s>).
# 2. The same with {"tokenizer_class": "LlamaTokenizer"}: the space is back, <s> is not, although LlamaTokenizer's
#    docstring says "add_bos_token (`bool`, *optional*, defaults to `True`)". It comes with add_bos_token: true only.
# 3. tokenizer.json of a byte-level BPE and {"tokenizer_class": "LlamaTokenizerFast"}, as DeepSeek's folders have it.
#    Expected: the ids of tokenizer.json. Seen: LlamaTokenizer builds its own pre-tokenizer over that vocabulary, the ids
#    differ, and what they decode to has no spaces.
# 4. tokenizer.model of a unigram model and {"tokenizer_class": "LlamaTokenizer"}.
#    Expected: the ids of sentencepiece. Seen: a BPE over the pieces, which are not made by merges: words in letters.
#
# transformers 5.24.0 reads 1 and 3 as their files say (a TokenizersBackend); 2 and 4 are as here.
#
# Output of 5.17.0:
#   sentencepiece alone: TokenizersBackend ['t', 'he', '▁red'] for ['▁the', '▁red']
#   sentencepiece, LlamaTokenizer: ['▁the', '▁red'], with add_bos_token: ['<s>', '▁the', '▁red']
#   byte level, LlamaTokenizerFast: 'the red circle' comes back as 'theredcircle'
#   unigram, LlamaTokenizer: ['▁', 't', 'h', 'e'] for ['▁the']
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.17.0 tokenizers==0.23.3 sentencepiece==0.2.3 protobuf==7.36.2
cat > "$folder/run.py" <<'PY'
import json
import sys
from pathlib import Path

import sentencepiece
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

root = Path(sys.argv[1])
words = "the red circle is a blue square what colour is it".split()
corpus = [" ".join(words[i:] + words[:i]) for i in range(len(words))] * 20
config = dict(model_type="llama", bos_token_id=1, eos_token_id=2)


def folder(name, **files):
    (root / name).mkdir()
    for file, content in dict(config=config, **files).items():
        (root / name / f"{file}.json").write_text(json.dumps(content))
    return root / name


def trained(model_type, vocab_size):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus), model_prefix=str(root / model_type), model_type=model_type,
        vocab_size=vocab_size, byte_fallback=True, hard_vocab_limit=False, remove_extra_whitespaces=False,
        normalization_rule_name="identity", minloglevel=2,
    )  # fmt: skip
    return root / f"{model_type}.model"


def pieces(folder, model, text, **settings):
    (folder / "tokenizer.model").write_bytes(model.read_bytes())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(text, **settings).input_ids
    return tokenizer, tokenizer.convert_ids_to_tokens(ids)


bpe = trained("bpe", 330)
right = sentencepiece.SentencePieceProcessor(model_file=str(bpe)).encode("the red", out_type=str)
tokenizer, seen = pieces(folder("alone"), bpe, "the red")
print("sentencepiece alone:", type(tokenizer).__name__, seen, "for", right)
assert right == ["▁the", "▁red"] and seen[:1] != right[:1] and "<s>" not in seen

llama = dict(tokenizer_class="LlamaTokenizer")
_, seen = pieces(folder("class", tokenizer_config=llama), bpe, "the red")
_, start = pieces(folder("start", tokenizer_config=dict(llama, add_bos_token=True)), bpe, "the red")
print("sentencepiece, LlamaTokenizer:", f"{seen}, with add_bos_token:", start)
assert seen == right and start == ["<s>", *right]

raw = Tokenizer(models.BPE())
raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
trainer = trainers.BpeTrainer(
    vocab_size=320, initial_alphabet=alphabet, special_tokens=["<s>", "</s>"], show_progress=False
)
raw.train_from_iterator(corpus, trainer)
names = dict(tokenizer_class="LlamaTokenizerFast", bos_token="<s>", eos_token="</s>")
deepseek = folder("deepseek", tokenizer_config=names)
raw.save(str(deepseek / "tokenizer.json"))
tokenizer, text = AutoTokenizer.from_pretrained(deepseek), "the red circle"
ids = tokenizer(text, add_special_tokens=False).input_ids
print("byte level, LlamaTokenizerFast:", repr(text), "comes back as", repr(tokenizer.decode(ids)))
assert raw.decode(raw.encode(text).ids) == text and ids != raw.encode(text).ids and " " not in tokenizer.decode(ids)

unigram = trained("unigram", 300)
right = sentencepiece.SentencePieceProcessor(model_file=str(unigram)).encode("the", out_type=str)
_, seen = pieces(folder("unigram", tokenizer_config=llama), unigram, "the")
print("unigram, LlamaTokenizer:", seen, "for", right)
assert right == ["▁the"] and seen != right
PY
"$folder/venv/bin/python" "$folder/run.py" "$folder"
