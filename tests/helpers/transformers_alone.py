"""What transformers makes of an exported folder, in this process or in one that has neither mmgpt nor MMEngine.

python transformers_alone.py JOB.json OUT.pt FOLDER ...     # without them: trust_remote_code=True

JOB.json has the arguments of `open_folder` other than the folder.
"""

import json
import sys

BLOCKED = ("mmgpt", "mmengine", "mmcv", "mmpretrain")


class Blocker:
    """Import hook under which some packages are not installed."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}")


def open_folder(folder, conversations, trust=True, more=(), length=8):
    """Ids, pixels, logits and answers of conversations, alone and in a left-padded batch, and those of the pipeline.

    Of `more` conversations only the answers are made. Answers are greedy, of at most `length` tokens.
    """
    import torch
    import transformers
    from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer, pipeline

    options = dict(trust_remote_code=True) if trust else {}
    model = AutoModelForImageTextToText.from_pretrained(folder, **options)
    processor = AutoProcessor.from_pretrained(folder, **options)
    template = dict(tokenize=True, return_dict=True, return_tensors="pt")
    greedy = dict(max_new_tokens=length, num_beams=1, do_sample=False)

    def answers(inputs, **generation):
        ids = model.generate(**inputs, **greedy, **generation)[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in processor.batch_decode(ids, skip_special_tokens=True)]

    rows = []
    for messages in conversations:
        inputs = processor.apply_chat_template(messages, **template)
        with torch.no_grad():
            logits = model(**inputs).logits
        row = dict(inputs, logits=logits, cached=answers(inputs), uncached=answers(inputs, use_cache=False))
        rows.append(row)
    padded = processor.apply_chat_template(conversations, processor_kwargs=dict(padding=True), **template)
    with torch.no_grad():
        batch = dict(padded, logits=model(**padded).logits, answers=answers(padded))
    pipe = pipeline("image-text-to-text", model=folder, **options)
    options = dict(generate_kwargs=greedy, return_full_text=False)
    pieces = [pipe(text=messages, **options) for messages in conversations]
    texts = [[entry["generated_text"].strip() for entry in output] for output in pieces]
    rest = [answers(processor.apply_chat_template(messages, **template))[0] for messages in more]
    vocabulary = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust).get_vocab()
    output = dict(rows=rows, batch=batch, pipeline=texts, more=rest, vocabulary=vocabulary)
    return dict(output, module=type(model).__module__, version=transformers.__version__)


if __name__ == "__main__":
    sys.meta_path.insert(0, Blocker())
    import torch

    torch.set_num_threads(1)
    with open(sys.argv[1]) as file:
        job = json.load(file)
    torch.save([open_folder(folder, **job) for folder in sys.argv[3:]], sys.argv[2])
    assert not [name for name in sys.modules if name.partition(".")[0] in BLOCKED]
