"""Caption scores of COCO Caption, Flickr30k and NoCaps by pycocoevalcap: BLEU, METEOR, ROUGE-L, CIDEr, SPICE."""

import logging
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from subprocess import CalledProcessError

from mmengine.logging import print_log

from mmgpt.evaluation.metrics.answers import references
from mmgpt.evaluation.metrics.rules import Rule
from mmgpt.registry import SCORES

BLEU = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4")
SPICE_FILES = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
WORD = re.compile(r"\w+(?:['-]\w+)*")
Captions = dict[int, list[str]]  # image number -> captions


@SCORES.register_module("caption")
class CaptionRule(Rule):
    """Rule of caption scores, which weigh all captions together; references are ``answers``, or else ``answer``."""

    package = "pycocoevalcap"
    scores_samples = False

    def score_sample(self, sample: dict) -> dict:
        """The ``prediction`` of a sample, one caption in a list, and its ``references``, each on one line.

        Raises:
            ValueError: the sample has no references; names it.
        """
        captions = {"prediction": [sample["prediction"]], "references": sample.get("answers") or references(sample)}
        # The official tokenizer takes what follows any line break ('\r' and the like, too) for the next caption.
        return {name: [" ".join(text.splitlines()) for text in texts] for name, texts in captions.items()}

    def summarize(self, rows: Sequence[dict]) -> dict[str, float]:
        """BLEU-1 to BLEU-4, METEOR, ROUGE-L, CIDEr and SPICE, times 100.

        Scores that cannot be computed are left out, with a warning that says why. The official tokenizer needs Java;
        without it captions are split by a plain one, and all names begin with 'plain_', since the numbers cannot be
        compared with published ones.

        CIDEr weighs words by their frequency among the given rows. For a group of images it is computed on that group
        alone, as is usual for NoCaps' domains.
        """
        predictions, targets = (dict(enumerate(row[key] for row in rows)) for key in ("prediction", "references"))
        if not find_java():
            scores = _ngram_scores(_plain_tokens(predictions), _plain_tokens(targets))
            return {f"plain_{name}": score for name, score in scores.items()}
        from pycocoevalcap.meteor.meteor import Meteor

        predictions, targets = _official_tokens(predictions), _official_tokens(targets)
        meteor, _ = Meteor().compute_score(targets, predictions)
        return _ngram_scores(predictions, targets) | {"METEOR": 100 * meteor} | _spice(predictions, targets)

    def warn(self) -> None:
        """Log which scores will be missing if Java is not installed."""
        find_java()


def find_java() -> bool:
    """Whether Java is installed; if not, a warning in the log names the scores that will be missing."""
    has_java = shutil.which("java") is not None
    if not has_java:
        _warn("no Java: METEOR and SPICE are left out, and plain_ scores come from a plain tokenizer, not the official")
    return has_java


def _warn(text: str) -> None:
    print_log(f"captions: {text}", "current", logging.WARNING)


def _official_tokens(captions: Captions) -> Captions:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    return PTBTokenizer().tokenize({image: [{"caption": text} for text in texts] for image, texts in captions.items()})


def _plain_tokens(captions: Captions) -> Captions:
    """Captions in lower case and without punctuation."""
    return {image: [" ".join(WORD.findall(text.lower())) for text in texts] for image, texts in captions.items()}


def _ngram_scores(predictions: Captions, targets: Captions) -> dict[str, float]:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    bleu, _ = Bleu(len(BLEU)).compute_score(targets, predictions, verbose=0)
    rouge, _ = Rouge().compute_score(targets, predictions)
    cider, _ = Cider().compute_score(targets, predictions)
    scores = zip((*BLEU, "ROUGE-L", "CIDEr"), (*bleu, rouge, cider), strict=True)
    return {name: 100 * float(score) for name, score in scores}


def _spice(predictions: Captions, targets: Captions) -> dict[str, float]:
    """SPICE, if its files are installed: otherwise pycocoevalcap would download them, 400 MB."""
    from pycocoevalcap.spice import spice

    folder = Path(spice.__file__).parent / "lib"
    missing = [name for name in SPICE_FILES if not (folder / name).is_file()]
    if missing:
        _warn(f"SPICE is left out: {' and '.join(missing)} of Stanford CoreNLP are not in {folder}")
        return {}
    try:
        score, _ = spice.Spice().compute_score(targets, predictions)
    except CalledProcessError as error:
        _warn(f"SPICE is left out: {error} (it was written for Java 8)")
        return {}
    return {"SPICE": 100 * float(score)}
