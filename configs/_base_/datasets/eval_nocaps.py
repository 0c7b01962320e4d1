# NoCaps' validation split (arXiv:1812.08658): 4500 images of Open Images, ten captions each, scored by domain too.
needed_nocaps = {
    "${data_root}/nocaps": "NoCaps (nocaps.org/download: nocaps_val_4500_captions.json, and its images in images)"
}
eval_nocaps = dict(
    type="InstructionDataset",
    name="nocaps",
    parser="nocaps",
    seed="${seed}",
    data_root="${data_root}",
    ann_file="nocaps/nocaps_val_4500_captions.json",
    data_prefix=dict(img="nocaps/images"),
    pipeline=["${caption_question_${style}}", "${example_steps}", "${image_steps}", "${question_steps}"],
)
metric_nocaps = dict(type="BenchmarkScores", rule="caption", by=["domain"])
task_nocaps = "caption"
