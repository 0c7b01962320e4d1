# VQAv2 (arXiv:1612.00837): "vqav2", the validation split, scored as the source's script does and as OpenFlamingo does;
# "vqav2_test_dev", whose answers only the leaderboard knows: the file that it takes is written.
needed_vqav2 = {
    "${data_root}/vqav2": "VQAv2 (visualqa.org/download.html: questions and annotations of the balanced real images)",
    "${data_root}/coco/test2015": "COCO's test images of 2015 (cocodataset.org/#download)",
}
_vqav2_asked = dict(
    type="InstructionDataset",
    seed="${seed}",
    data_root="${data_root}",
    pipeline=["${example_steps}", "${image_steps}", "${question_steps}"],
)
eval_vqav2 = dict(
    name="vqav2",
    parser=dict(type="vqa", image="val2014/COCO_val2014_{image_id:012d}.jpg", tags=["question_type", "answer_type"]),
    ann_file="vqav2/v2_mscoco_val2014_annotations.json",
    data_prefix=dict(img="coco", questions="vqav2/v2_OpenEnded_mscoco_val2014_questions.json"),
    expect=dict(data_subtype="val2014"),
    **_vqav2_asked,
)
eval_vqav2_test_dev = dict(
    name="vqav2_test_dev",
    parser=dict(type="vqa", image="test2015/COCO_test2015_{image_id:012d}.jpg"),
    ann_file="vqav2/v2_OpenEnded_mscoco_test-dev2015_questions.json",
    data_prefix=dict(img="coco"),
    expect=dict(data_subtype="test.*2015"),
    **_vqav2_asked,
)
metric_vqav2 = [
    dict(type="BenchmarkScores", rule="vqa", by=["answer_type"]),
    dict(type="BenchmarkScores", rule="openflamingo"),
]
metric_vqav2_test_dev = dict(
    type="VQALeaderboardFile",
    question_file="${data_root}/vqav2/v2_OpenEnded_mscoco_test-dev2015_questions.json",
    out_file="vqav2_test-dev2015_answers.json",
)
task_vqav2 = task_vqav2_test_dev = "vqa"
