# The tiny world of tools/dataset_converters/tiny_world.py: the published formats, at 64 pixels.
_base_ = "./tiny_images.py"

data_root = "data/tiny"
prompt_template = "short"
max_length = 128

_options = [dict(type="OfferOptions", prob=1.0)]
_reason = [dict(type="GiveReason", questions=["Give the reason, too."])]
_describe = [dict(type="PickAnswer"), dict(type="AskQuestion", questions=["Describe the picture.", "What is shown?"])]
_detail = [dict(type="PickAnswer"), dict(type="AskQuestion", questions=["Describe the picture in detail."])]

# Task family -> parser, annotation file without its split, its own transforms.
_visual = {
    "colour": ("aokvqa", "aokvqa/{}_colour.json", []),
    "shape": ("aokvqa", "aokvqa/{}_shape.json", []),
    "colour_options": ("aokvqa", "aokvqa/{}_colour_options.json", _options),
    "shape_options": ("aokvqa", "aokvqa/{}_shape_options.json", _options),
    "count": ("aokvqa", "aokvqa/{}_count.json", []),
    "position": ("aokvqa", "aokvqa/{}_position.json", []),
    "yes_no": ("aokvqa", "aokvqa/{}_yes_no.json", []),
    "relation": ("aokvqa", "aokvqa/{}_relation.json", []),
    "caption": ("coco_caption", "coco_caption/{}.json", _describe),
    "rationale": ("aokvqa", "aokvqa/{}_rationale.json", _reason),
    "words": ("ocr_vqa", "ocr_vqa/{}_words.json", [dict(type="PickTurn")]),
    "digits": ("ocr_vqa", "ocr_vqa/{}_digits.json", [dict(type="PickTurn")]),
    "third_turn": ("llava", "llava/{}_dialogue.json", []),
}
# Most of the samples go to the families that are learned last.
_samples = {
    "colour": 1500,
    "shape": 1500,
    "colour_options": 2000,
    "shape_options": 2000,
    "count": 2200,
    "position": 1000,
    "yes_no": 1400,
    "relation": 2600,
    "caption": 2300,
    "rationale": 2600,
    "words": 800,
    "digits": 2500,
    "third_turn": 2400,
}
_language = {
    "dolly": ("dolly", "dolly/{}.jsonl", []),
    "alpaca": ("alpaca", "alpaca_gpt4/{}.json", []),
    "baize": ("baize", "baize/{}.json", []),
}


def _dataset(name, part, split, source, images, steps, sample):
    parser, file, own = part
    return dict(
        type="InstructionDataset",
        name=name,
        source=source,
        parser=parser,
        sample=sample,
        data_root="${data_root}",
        ann_file=file.format(split),
        data_prefix=dict(img=images),
        pipeline=[*own, *steps],
    )


def _datasets(families, split, source, images, steps, samples=None):
    samples = samples or {}
    return [_dataset(name, part, split, source, images, steps, samples.get(name)) for name, part in families.items()]


visual_data = _datasets(_visual, "train", "visual", "images", ["${image_steps}", "${answer_steps}"], _samples)
visual_data.append(
    _dataset(
        "description",
        ("minigpt4", "cc_sbu_align/train/filter_cap.json", _detail),
        "train",
        "visual",
        "cc_sbu_align/train/image",
        ["${image_steps}", "${answer_steps}"],
        sample=300,
    )
)
language_data = _datasets(_language, "train", "language", "", ["${answer_steps}"])

train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    dataset=dict(
        type="JointDataset",
        seed="${seed}",
        on_error="${on_error}",
        visual="${visual_data}",
        language="${language_data}",
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
        visual=_datasets(_visual, "heldout", "visual", "images", ["${image_steps}", "${question_steps}"]),
        language=_datasets(_language, "heldout", "language", "", ["${question_steps}"]),
    ),
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="collate_conversations", padding_side="left"),
)
test_cfg = dict(type="TestLoop")
test_evaluator = dict(type="AnswerAccuracy", groups=dict(visual=list(_visual), language=list(_language)))
