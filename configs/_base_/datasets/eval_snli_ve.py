# SNLI-VE's test split (arXiv:1901.06706): whether an image of Flickr30k entails a statement, leaves it open or
# contradicts it. The records do not tell their split.
needed_snli_ve = {"${data_root}/snli_ve": "SNLI-VE (github.com/necla-ml/SNLI-VE: snli_ve_test.jsonl)"}
answering_snli_ve = "ranking"
eval_snli_ve = dict(
    type="InstructionDataset",
    name="snli_ve",
    parser="snli_ve",
    seed="${seed}",
    data_root="${data_root}",
    ann_file="snli_ve/snli_ve_test.jsonl",
    data_prefix=dict(img="flickr30k/flickr30k-images"),
    pipeline=[
        dict(type="AddQuestion", questions=["How does this statement relate to the picture?"]),
        dict(type="OfferOptions"),
        "${example_steps}",
        "${image_steps}",
        "${steps_${answering_snli_ve}}",
    ],
)
metric_snli_ve = dict(type="BenchmarkScores", rule="choice")
task_snli_ve = "vqa"
