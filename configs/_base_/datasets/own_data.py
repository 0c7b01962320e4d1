# Your own data: in the schema of docs/data.md with images and in text only, and as chat messages.
_own = dict(type="InstructionDataset", parser="conversation", data_root="${data_root}")
own_images = dict(
    name="own_images",
    ann_file="own/images.jsonl",
    data_prefix=dict(img="own/images"),
    pipeline=["${image_steps}", "${answer_steps}"],
    **_own,
)
own_text = dict(name="own_text", source="language", ann_file="own/text.jsonl", pipeline=["${answer_steps}"], **_own)
own_messages = dict(
    type="InstructionDataset",
    name="own_messages",
    parser="messages",
    data_root="${data_root}",
    ann_file="own/messages.jsonl",
    data_prefix=dict(img="own/images"),
    pipeline=["${image_steps}", "${answer_steps}"],
)
