# TextVQA's validation split (arXiv:1904.08920), without OCR tokens in the prompt, scored as the source's evaluator does
# and as OpenFlamingo does.
needed_textvqa = {
    "${data_root}/textvqa": "TextVQA (textvqa.org/dataset: TextVQA_0.5.1_val.json, and the images of the training set, "
    "among which are those of validation, in train_images)"
}
eval_textvqa = dict(
    type="InstructionDataset",
    name="textvqa",
    parser=dict(type="vqa", image="{image_id}.jpg"),
    seed="${seed}",
    data_root="${data_root}",
    ann_file="textvqa/TextVQA_0.5.1_val.json",
    data_prefix=dict(img="textvqa/train_images"),
    expect=dict(set_name="val"),
    pipeline=["${example_steps}", "${image_steps}", "${question_steps}"],
)
metric_textvqa = [dict(type="BenchmarkScores", rule="textvqa"), dict(type="BenchmarkScores", rule="openflamingo")]
task_textvqa = "vqa"
