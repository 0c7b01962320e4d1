# LLaVA-Instruct-150K, one turn each: detailed descriptions and reasoning.
# https://huggingface.co/datasets/liuhaotian/LLaVA-Instruct-150K; its images are COCO's of 2017 (coco/train2017).
_llava_part = dict(
    type="InstructionDataset",
    parser="llava",
    data_root="${data_root}",
    data_prefix=dict(img="coco/train2017"),
    pipeline=["${image_steps}", "${answer_steps}"],
)
llava_detail = dict(name="llava_detail", ann_file="llava/detail_23k.json", **_llava_part)
llava_reasoning = dict(name="llava_reasoning", ann_file="llava/complex_reasoning_77k.json", **_llava_part)
