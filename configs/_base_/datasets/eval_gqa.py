# GQA's balanced test-dev questions (arXiv:1902.09506): the short answer, exactly; scored by type of question too.
needed_gqa = {
    "${data_root}/gqa": "GQA (cs.stanford.edu/people/dorarad/gqa/download.html: questions1.2.zip in questions, images)"
}
eval_gqa = dict(
    type="InstructionDataset",
    name="gqa",
    parser=dict(type="vqa", image="{imageId}.jpg", tags=["structural", "semantic"]),
    seed="${seed}",
    data_root="${data_root}",
    ann_file="gqa/questions/testdev_balanced_questions.json",
    data_prefix=dict(img="gqa/images"),
    # The images of training and validation have plain numbers.
    expect=dict(imageId=r"n\d+"),
    pipeline=["${example_steps}", "${image_steps}", "${question_steps}"],
)
metric_gqa = dict(type="BenchmarkScores", rule="exact", by=["structural", "semantic"])
task_gqa = "vqa"
