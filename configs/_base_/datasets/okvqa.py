# OK-VQA: https://okvqa.allenai.org/download.html (training questions and annotations, unpacked to okvqa); its images
# are COCO's of 2014: https://cocodataset.org/#download (coco/train2014).
_okvqa = dict(type="InstructionDataset", data_root="${data_root}", pipeline=["${image_steps}", "${answer_steps}"])
okvqa = dict(
    name="okvqa",
    parser=dict(type="vqa", image="train2014/COCO_train2014_{image_id:012d}.jpg"),
    ann_file="okvqa/mscoco_train2014_annotations.json",
    data_prefix=dict(img="coco", questions="okvqa/OpenEnded_mscoco_train2014_questions.json"),
    **_okvqa,
)
# The same as one list, which the published loader reads:
# https://storage.googleapis.com/sfr-vision-language-research/LAVIS/datasets/okvqa/okvqa_train.json
okvqa_lavis = dict(
    name="okvqa_lavis",
    parser="vqa",
    ann_file="okvqa/okvqa_train.json",
    data_prefix=dict(img="coco"),
    **_okvqa,
)
