# LLaVA-Instruct-150K, one turn each: detailed descriptions and reasoning. Its images are COCO's of 2017.
_llava_part = dict(
    type="InstructionDataset",
    parser="llava",
    data_root="${data_root}",
    data_prefix=dict(
        img=dict(path="coco/train2017", source="COCO's images of 2017 (cocodataset.org/#download: train2017)")
    ),
    pipeline=["${image_steps}", "${answer_steps}"],
)
llava_detail = dict(
    name="llava_detail",
    ann_file=dict(
        path="llava/detail_23k.json",
        source="LLaVA-Instruct-150K (huggingface.co/datasets/liuhaotian/LLaVA-Instruct-150K)",
    ),
    **_llava_part,
)
llava_reasoning = dict(
    name="llava_reasoning",
    ann_file=dict(
        path="llava/complex_reasoning_77k.json",
        source="LLaVA-Instruct-150K (huggingface.co/datasets/liuhaotian/LLaVA-Instruct-150K)",
    ),
    **_llava_part,
)
