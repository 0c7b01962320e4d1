# Conversations in ShareGPT's layout, in text:
# https://huggingface.co/datasets/anon8231489123/ShareGPT_Vicuna_unfiltered (ShareGPT_V3_unfiltered_cleaned_split.json)
# For records with images: source="visual", a data_prefix, and "${image_steps}" before "${answer_steps}".
sharegpt = dict(
    type="InstructionDataset",
    name="sharegpt",
    parser="sharegpt",
    source="language",
    data_root="${data_root}",
    ann_file="sharegpt/ShareGPT_V3_unfiltered_cleaned_split.json",
    pipeline=["${answer_steps}"],
)
