# COCO Caption, Karpathy's test split: 5000 images, five captions each.
needed_coco_caption = {
    "${data_root}/coco/annotations/dataset_coco.json": "caption_datasets.zip or coco.zip of Karpathy's splits "
    "(cs.stanford.edu/people/karpathy/deepimagesent)",
    "${data_root}/coco": "COCO's images of 2014 (cocodataset.org/#download: train2014, val2014)",
}
eval_coco_caption = dict(
    type="InstructionDataset",
    name="coco_caption",
    parser=dict(type="karpathy", split="test"),
    seed="${seed}",
    data_root="${data_root}",
    ann_file="coco/annotations/dataset_coco.json",
    data_prefix=dict(img="coco"),
    pipeline=["${caption_question_${style}}", "${example_steps}", "${image_steps}", "${question_steps}"],
)
metric_coco_caption = dict(type="BenchmarkScores", rule="caption")
task_coco_caption = "caption"
