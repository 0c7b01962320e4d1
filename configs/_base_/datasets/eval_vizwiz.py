# VizWiz-VQA's validation split (arXiv:1802.08218), scored as the source's script does and as OpenFlamingo does.
needed_vizwiz = {
    "${data_root}/vizwiz": "VizWiz-VQA (vizwiz.org/tasks-and-datasets/vqa: val.json in annotations, images in val)"
}
eval_vizwiz = dict(
    type="InstructionDataset",
    name="vizwiz",
    parser=dict(type="vqa", tags=["answer_type"]),
    seed="${seed}",
    data_root="${data_root}",
    ann_file="vizwiz/annotations/val.json",
    data_prefix=dict(img="vizwiz/val"),
    expect=dict(image="VizWiz_val_.*"),
    pipeline=["${example_steps}", "${image_steps}", "${question_steps}"],
)
metric_vizwiz = [
    dict(type="BenchmarkScores", rule="vizwiz", by=["answer_type"]),
    dict(type="BenchmarkScores", rule="openflamingo"),
]
task_vizwiz = "vqa"
