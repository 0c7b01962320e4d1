# ScienceQA's test split (arXiv:2209.09513), questions without an image too; scored by subject, context and grade as the
# source's script does.
needed_scienceqa = {
    "${data_root}/scienceqa": "ScienceQA (github.com/lupantech/ScienceQA: problems.json, and the images in images/test)"
}
answering_scienceqa = "ranking"
eval_scienceqa = dict(
    type="InstructionDataset",
    name="scienceqa",
    parser=dict(type="scienceqa", split="test"),
    seed="${seed}",
    data_root="${data_root}",
    ann_file="scienceqa/problems.json",
    data_prefix=dict(img="scienceqa/images"),
    pipeline=[dict(type="OfferOptions"), "${example_steps}", "${image_steps}", "${steps_${answering_scienceqa}}"],
)
metric_scienceqa = dict(type="BenchmarkScores", rule="choice", by=["subject", "context", "grade"])
task_scienceqa = "vqa"
