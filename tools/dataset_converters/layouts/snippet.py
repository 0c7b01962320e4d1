"""Config of an experiment on the converted data, as a starting point."""

import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

from mmgpt.datasets.conversation import question_text

EPOCHS = 3
STEP = 16  # batches of one sample in an optimizer step of the published schedule
WARM_UP = 0.05  # share of all steps; there is no warm-up where that is less than one step
TEXT = """\
_base_ = "./lora_joint.py"

{name} = dict(
    type="InstructionDataset",
    name="{name}",
    parser="conversation",
    source="{source}",
    data_root={root},
    ann_file={file},
    data_prefix=dict({prefix}),
    pipeline=[{steps}],
)
train_dataloader = dict(dataset=dict({datasets}))
{test}
max_epochs = {epochs}
warmup_iters = {warm_up}  # batches
"""
TEST = """\
test_dataloader = dict(
    dataset=dict({name}, _delete_=True, ann_file={file}, pipeline=[{steps}])
)
test_evaluator = dict(_delete_=True, type="AnswerAccuracy")"""
NO_TEST = "test_dataloader = test_cfg = test_evaluator = None"


def name_of(out: Path) -> str:
    """The name of a dataset in a config: that of the file's folder, with my_ before it."""
    return "my_" + re.sub(r"\W+", "_", out.absolute().parent.name).removeprefix("my_").strip("_")


def config(out: Path, held_out: Path | None, images: Path | None, samples: Sequence[dict]) -> str:
    """The text of a config that inherits lora_joint.py and trains on the samples alone.

    Args:
        out: annotation file of the samples.
        held_out: annotation file of the held-out samples, to test on.
        images: folder that the paths of images are relative to; None where they are in shards.
        samples: the samples in `out`.
    """
    name, visual = name_of(out), any(sample["images"] for sample in samples)
    # Transforms fill in what the samples leave open: an answer, a question.
    turns = [turn for sample in samples for turn in sample["turns"]]
    steps = []
    if any(turn.get("answers") and not turn.get("answer") for turn in turns):
        steps.append('dict(type="PickAnswer")')
    if not all(question_text(turn["question"]) for turn in turns):
        steps.append('dict(type="AskQuestion", questions=["Describe the picture."])')
    steps += ['"${image_steps}"'] * visual
    train_steps, test_steps = (", ".join([*steps, f'"${{{end}_steps}}"']) for end in ("answer", "question"))
    sources = {"visual": [], "language": []} | {"visual" if visual else "language": [f"${{{name}}}"]}
    batches = EPOCHS * len(samples)
    warm_up = STEP * math.ceil(batches / STEP * WARM_UP)
    test = TEST.format(name=name, file=json.dumps(held_out.name), steps=test_steps) if held_out else NO_TEST
    return TEXT.format(
        name=name,
        source="visual" if visual else "language",
        root=json.dumps(out.parent.as_posix()),
        file=json.dumps(out.name),
        prefix=f"img={json.dumps(Path(os.path.relpath(images, out.parent)).as_posix())}" if visual and images else "",
        steps=train_steps,
        datasets=", ".join(f"{source}={json.dumps(names)}" for source, names in sources.items()),
        test=test,
        epochs=EPOCHS,
        warm_up=warm_up if warm_up <= batches else 0,
    )
