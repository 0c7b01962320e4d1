# Conversations in ShareGPT's layout, in text. Records with images need source="visual", a data_prefix, and
# "${image_steps}" before "${answer_steps}".
sharegpt = dict(
    type="InstructionDataset",
    name="sharegpt",
    parser="sharegpt",
    source="language",
    data_root="${data_root}",
    ann_file=dict(
        path="sharegpt/ShareGPT_V3_unfiltered_cleaned_split.json",
        source="ShareGPT (huggingface.co/datasets/anon8231489123/ShareGPT_Vicuna_unfiltered)",
    ),
    pipeline=["${answer_steps}"],
)
