# How likely the answers of held-out text-only instructions are: loss and perplexity, by which tuning on pictures that
# costs language is seen. JSON lines of docs/data.md; convert.py makes them, e.g. of what is kept from Dolly:
#   python tools/dataset_converters/convert.py parser dolly FILE --out data/language/train.jsonl --val 0.05
needed_language = {"${data_root}/language": "text-only instructions that are not trained on (docs/data.md)"}
eval_language = dict(
    type="InstructionDataset",
    name="language",
    source="language",
    parser="conversation",
    seed="${seed}",
    data_root="${data_root}",
    ann_file="language/val.jsonl",
    data_prefix=dict(),
    pipeline=["${example_steps}", "${likelihood_steps}"],
)
metric_language = dict(type="Perplexity")
task_language = "vqa"
