# Flickr30k, Karpathy's test split: 1000 images, five captions each.
needed_flickr30k = {
    "${data_root}/flickr30k/dataset_flickr30k.json": "caption_datasets.zip or flickr30k.zip of Karpathy's splits "
    "(cs.stanford.edu/people/karpathy/deepimagesent)",
    "${data_root}/flickr30k": "Flickr30k's images (shannon.cs.illinois.edu/DenotationGraph), in flickr30k-images",
}
eval_flickr30k = dict(
    type="InstructionDataset",
    name="flickr30k",
    parser=dict(type="karpathy", split="test"),
    seed="${seed}",
    data_root="${data_root}",
    ann_file="flickr30k/dataset_flickr30k.json",
    data_prefix=dict(img="flickr30k/flickr30k-images"),
    pipeline=["${caption_question_${style}}", "${example_steps}", "${image_steps}", "${question_steps}"],
)
metric_flickr30k = dict(type="BenchmarkScores", rule="caption")
task_flickr30k = "caption"
