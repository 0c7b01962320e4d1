# The tiny world of projects/tiny_world/generate.py: the published formats, at 64 pixels.
_base_ = "./tiny_images.py"

data_root = "data/tiny"
prompt_template = "short"
max_length = 128

_options = [dict(type="OfferOptions", prob=1.0)]
_reason = [dict(type="GiveReason", questions=["Give the reason, too."])]
_describe = [dict(type="PickAnswer"), dict(type="AskQuestion", questions=["Describe the picture.", "What is shown?"])]
_detail = [dict(type="PickAnswer"), dict(type="AskQuestion", questions=["Describe the picture in detail."])]
_pick = [dict(type="PickTurn")]


def _dataset(name, parser, file, sample=None, steps=(), images="images"):
    return dict(
        type="InstructionDataset",
        name=name,
        source="visual" if images else "language",
        parser=parser,
        sample=sample,
        data_root="${data_root}",
        ann_file=file,
        data_prefix=dict(img=images),
        pipeline=[*steps, *(["${image_steps}"] if images else []), "${answer_steps}"],
    )


def _heldout(dataset):
    steps = [*dataset["pipeline"][:-1], "${question_steps}"]
    return dict(dataset, sample=None, ann_file=dataset["ann_file"].replace("train", "heldout"), pipeline=steps)


# Most of the samples belong to the families of questions that the model learns last.
colour = _dataset("colour", "aokvqa", "aokvqa/train_colour.json", 1500)
shape = _dataset("shape", "aokvqa", "aokvqa/train_shape.json", 1500)
colour_options = _dataset("colour_options", "aokvqa", "aokvqa/train_colour_options.json", 2000, _options)
shape_options = _dataset("shape_options", "aokvqa", "aokvqa/train_shape_options.json", 2000, _options)
count = _dataset("count", "aokvqa", "aokvqa/train_count.json", 2200)
position = _dataset("position", "aokvqa", "aokvqa/train_position.json", 1000)
yes_no = _dataset("yes_no", "aokvqa", "aokvqa/train_yes_no.json", 1400)
relation = _dataset("relation", "aokvqa", "aokvqa/train_relation.json", 2600)
caption = _dataset("caption", "coco_caption", "coco_caption/train.json", 2300, _describe)
rationale = _dataset("rationale", "aokvqa", "aokvqa/train_rationale.json", 2600, _reason)
words = _dataset("words", "ocr_vqa", "ocr_vqa/train_words.json", 800, _pick)
digits = _dataset("digits", "ocr_vqa", "ocr_vqa/train_digits.json", 2500, _pick)
third_turn = _dataset("third_turn", "llava", "llava/train_dialogue.json", 2400)
description = _dataset(
    "description", "minigpt4", "cc_sbu_align/train/filter_cap.json", 300, _detail, "cc_sbu_align/train/image"
)
dolly = _dataset("dolly", "dolly", "dolly/train.jsonl", images="")
alpaca = _dataset("alpaca", "alpaca", "alpaca_gpt4/train.json", images="")
baize = _dataset("baize", "baize", "baize/train.json", images="")

# These families are tested too. A description has no single right answer.
_visual = [colour, shape, colour_options, shape_options, count, position, yes_no, relation, caption, rationale]
_visual += [words, digits, third_turn]
_language = [dolly, alpaca, baize]


def _names(datasets):
    return [dataset["name"] for dataset in datasets]


train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    dataset=dict(
        type="JointDataset",
        seed="${seed}",
        on_error="${on_error}",
        visual=[f"${{{name}}}" for name in _names([*_visual, description])],
        language=[f"${{{name}}}" for name in _names(_language)],
    ),
    sampler=dict(type="DefaultSampler", shuffle=True),
    batch_sampler=dict(type="JointBatchSampler", language_batch_size=6, sorted_batches=20),
    collate_fn=dict(type="collate_conversations"),
)

test_dataloader = dict(
    batch_size=128,
    num_workers=0,
    dataset=dict(
        type="JointDataset",
        visual=[_heldout(dataset) for dataset in _visual],
        language=[_heldout(dataset) for dataset in _language],
    ),
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="collate_conversations", padding_side="left"),
)
test_cfg = dict(type="EvaluationLoop")
test_evaluator = dict(type="AnswerAccuracy", groups=dict(visual=_names(_visual), language=_names(_language)))
