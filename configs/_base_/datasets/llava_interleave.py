# Conversations about several images in LLaVA's layout (`image` is a list), such as the multi-image part of
# M4-Instruct-Data. Records of videos are not read.
llava_interleave = dict(
    type="InstructionDataset",
    name="llava_interleave",
    parser="llava",
    data_root="${data_root}",
    ann_file=dict(
        path="llava_interleave/train.json",
        source="records of several images (huggingface.co/datasets/lmms-lab/M4-Instruct-Data)",
    ),
    data_prefix=dict(
        img=dict(
            path="llava_interleave/images", source="their images (huggingface.co/datasets/lmms-lab/M4-Instruct-Data)"
        )
    ),
    pipeline=["${image_steps}", "${answer_steps}"],
)
