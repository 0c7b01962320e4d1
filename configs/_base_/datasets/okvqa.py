# OK-VQA, questions that need outside knowledge: training questions and annotations. Its images are COCO's of 2014.
_okvqa = dict(type="InstructionDataset", data_root="${data_root}", pipeline=["${image_steps}", "${answer_steps}"])
okvqa = dict(
    name="okvqa",
    parser=dict(type="vqa", image="train2014/COCO_train2014_{image_id:012d}.jpg"),
    ann_file=dict(path="okvqa/mscoco_train2014_annotations.json", source="OK-VQA (okvqa.allenai.org/download.html)"),
    data_prefix=dict(
        img=dict(path="coco", source="COCO's images of 2014 (cocodataset.org/#download: train2014)"),
        questions=dict(
            path="okvqa/OpenEnded_mscoco_train2014_questions.json", source="OK-VQA (okvqa.allenai.org/download.html)"
        ),
    ),
    **_okvqa,
)
# The same records as one list, which the published loader reads.
okvqa_lavis = dict(
    name="okvqa_lavis",
    parser="vqa",
    ann_file=dict(
        path="okvqa/okvqa_train.json",
        source="storage.googleapis.com/sfr-vision-language-research/LAVIS/datasets/okvqa/okvqa_train.json",
    ),
    data_prefix=dict(img=dict(path="coco", source="COCO's images of 2014 (cocodataset.org/#download: train2014)")),
    **_okvqa,
)
