# OK-VQA's validation split (arXiv:1906.00067), version 1.1, scored as VQAv2. OpenFlamingo's own evaluation also
# reduces words to their stems, which is not done here.
needed_okvqa = {"${data_root}/okvqa": "OK-VQA (okvqa.allenai.org/download.html: questions and annotations)"}
eval_okvqa = dict(
    type="InstructionDataset",
    name="okvqa",
    parser=dict(type="vqa", image="val2014/COCO_val2014_{image_id:012d}.jpg", tags=["question_type", "answer_type"]),
    seed="${seed}",
    data_root="${data_root}",
    ann_file="okvqa/mscoco_val2014_annotations.json",
    data_prefix=dict(img="coco", questions="okvqa/OpenEnded_mscoco_val2014_questions.json"),
    expect=dict(data_subtype="val2014"),
    pipeline=["${example_steps}", "${image_steps}", "${question_steps}"],
)
metric_okvqa = [
    dict(type="BenchmarkScores", rule="vqa", by=["question_type"]),
    dict(type="BenchmarkScores", rule="openflamingo"),
]
task_okvqa = "vqa"
