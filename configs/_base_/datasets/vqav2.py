# VQAv2: https://visualqa.org/download.html (balanced real images: training questions and annotations of 2017, unpacked
# to vqav2); its images are COCO's of 2014: https://cocodataset.org/#download (coco/train2014).
_vqav2 = dict(type="InstructionDataset", data_root="${data_root}", pipeline=["${image_steps}", "${answer_steps}"])
vqav2 = dict(
    name="vqav2",
    parser=dict(type="vqa", image="train2014/COCO_train2014_{image_id:012d}.jpg"),
    ann_file="vqav2/v2_mscoco_train2014_annotations.json",
    data_prefix=dict(img="coco", questions="vqav2/v2_OpenEnded_mscoco_train2014_questions.json"),
    **_vqav2,
)
# The same as one list, which the published loader reads; its images are also in coco/val2014.
# https://storage.googleapis.com/sfr-vision-language-research/LAVIS/datasets/vqav2/vqa_train.json
vqav2_lavis = dict(
    name="vqav2_lavis",
    parser="vqa",
    ann_file="vqav2/vqa_train.json",
    data_prefix=dict(img="coco"),
    **_vqav2,
)
