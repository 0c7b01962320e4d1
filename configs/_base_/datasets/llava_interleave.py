# Conversations about several images in LLaVA's layout (`image` is a list), such as the multi-image part of
# https://huggingface.co/datasets/lmms-lab/M4-Instruct-Data; records of videos are not read.
llava_interleave = dict(
    type="InstructionDataset",
    name="llava_interleave",
    parser="llava",
    data_root="${data_root}",
    ann_file="llava_interleave/train.json",
    data_prefix=dict(img="llava_interleave/images"),
    pipeline=["${image_steps}", "${answer_steps}"],
)
