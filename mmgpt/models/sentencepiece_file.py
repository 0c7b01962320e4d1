"""Conversion of a sentencepiece model into a tokenizer of the tokenizers library."""

from collections.abc import Mapping
from pathlib import Path

from google.protobuf.message import DecodeError
from sentencepiece import SentencePieceProcessor
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

SPACE = "▁"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4  # types of a piece in sentencepiece_model.proto
UNIGRAM, BPE = 1, 2  # types of a model there
# Texts that a wrong conversion encodes differently: the space in front, spaces in a row, line breaks, digits,
# punctuation, characters of one and of several bytes, code.
PROBES = (
    "The red circle is at the left.",
    "the",
    " a b",
    "two  spaces   three ",
    "first line\nsecond line\n\n\tindented",
    "In 2023 it cost 1,234.50 $ (12%)!",
    "Ünïcödé café",
    "你好 世界",
    "🙂",
    'def f(x):\n    return {"a": x[0] != 1}  # why?',
    "",
)


def read_sentencepiece(file: Path) -> ModelProto | None:
    """The model in a file; None where there is no file, or one of another format, such as tiktoken's.

    Raises:
        ValueError: a model that is neither BPE nor unigram.
    """
    if not file.is_file():
        return None
    try:
        model = ModelProto.FromString(file.read_bytes())
    except DecodeError:
        return None
    if not model.pieces:
        return None
    if model.trainer_spec.model_type not in (UNIGRAM, BPE):
        raise ValueError(f"{file}: only sentencepiece models of type BPE and unigram can be used")
    return model


def named_tokens(model: ModelProto) -> dict[str, str | None]:
    """The model's `bos_token`, `eos_token` and `unk_token`; None for those that it does not have."""
    spec = model.trainer_spec
    ids = {"bos_token": spec.bos_id, "eos_token": spec.eos_id, "unk_token": spec.unk_id}
    return {name: model.pieces[i].piece if 0 <= i < len(model.pieces) else None for name, i in ids.items()}


def convert_sentencepiece(model: ModelProto, is_mark, names: Mapping[int, str]) -> Tokenizer:
    """A tokenizer that gives the same ids as a sentencepiece model.

    transformers' conversions put no space in front of a text (5.17, without a tokenizer class), or none in front of
    another space (Llama's), and build the pre-tokenizer of their class, whatever the model is.

    Args:
        model: BPE or unigram.
        is_mark: whether a user-defined piece is a mark, such as `<start_of_turn>`, which becomes an added token. Other
            user-defined pieces, such as line breaks and spaces in a row, are ordinary text that is never split.
        names: names by id that replace those of placeholders.
    """
    spec = model.normalizer_spec
    pieces = [(names.get(i, piece.piece), piece.score, piece.type) for i, piece in enumerate(model.pieces)]

    # 1. The model.
    unknown_id, byte_fallback = model.trainer_spec.unk_id, model.trainer_spec.byte_fallback
    if model.trainer_spec.model_type == BPE:
        # sentencepiece merges the two neighbors whose union has the best score; control pieces are never a union.
        scores = {piece: score for piece, score, kind in pieces if kind in (NORMAL, USER_DEFINED)}
        merges = [
            (-score, len(piece[:cut]), piece[:cut], piece[cut:])
            for piece, score in scores.items()
            for cut in range(1, len(piece))
            if piece[:cut] in scores and piece[cut:] in scores
        ]
        tokenizer = Tokenizer(
            models.BPE(
                {piece: i for i, (piece, _, _) in enumerate(pieces)},
                [(left, right) for _, _, left, right in sorted(merges)],
                unk_token=pieces[unknown_id][0],
                fuse_unk=True,
                byte_fallback=byte_fallback,
            )
        )
    else:
        # sentencepiece finds only these two kinds in a text; tokenizers would use any piece with a good score.
        lowest = min(score for _, score, _ in pieces) - 1000
        vocabulary = [(piece, score if kind in (NORMAL, USER_DEFINED) else lowest) for piece, score, kind in pieces]
        tokenizer = Tokenizer(models.Unigram(vocabulary, unknown_id, byte_fallback))

    # 2. Normalization, symbols that are never split, and decoding.
    normalization = []
    if spec.precompiled_charsmap:
        normalization.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        normalization += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if spec.add_dummy_prefix:
        normalization.append(normalizers.Prepend(SPACE))
    tokenizer.normalizer = normalizers.Sequence([*normalization, normalizers.Replace(" ", SPACE)])
    decoding = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    symbols = [piece for piece, _, kind in pieces if kind == USER_DEFINED and not is_mark(piece)]
    if not spec.add_dummy_prefix:
        tokenizer.add_tokens([AddedToken(symbol, normalized=True, special=False) for symbol in symbols])
    else:
        # The text after an added token would get a space in front as well.
        if symbols:
            # Oniguruma, the library's regular expressions, accepts any escaped character. Longer symbols come first.
            plain = f"{SPACE}\n\t\r"
            patterns = [
                "".join(letter if letter.isalnum() or letter in plain else f"\\{letter}" for letter in symbol)
                for symbol in sorted(symbols, key=len, reverse=True)
            ]
            tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("|".join(patterns)), "isolated")
        decoding.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(decoding)

    # 3. Special tokens, marks, and the start of a text. Each call takes time in proportion to the vocabulary.
    control = [piece for piece, _, kind in pieces if kind in (UNKNOWN, CONTROL)]
    marks = [piece for piece, _, kind in pieces if kind == USER_DEFINED and is_mark(piece)]
    tokenizer.add_special_tokens([AddedToken(piece, normalized=False, special=True) for piece in control])
    tokenizer.add_tokens([AddedToken(piece, normalized=False, special=False) for piece in marks])
    if model.trainer_spec.bos_id >= 0:
        start = pieces[model.trainer_spec.bos_id][0]
        special = [(start, tokenizer.token_to_id(start))]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[start, "$A"], pair=[start, "$A", start, "$B"], special_tokens=special
        )
    return tokenizer


def first_difference(file: Path, tokenizer: Tokenizer, texts=PROBES) -> str | None:
    """The first text that a tokenizer encodes differently from the sentencepiece model in a file, or None."""
    model = SentencePieceProcessor(model_file=str(file))
    for text in texts:
        if tokenizer.encode(text, add_special_tokens=False).ids != model.encode(text):
            return text
    return None
