_base_ = "../../projects/real_parts/configs/real_lora.py"

language_model = dict(path="checkpoints/real/language")
vision_model = dict(path="checkpoints/real/vision")
vision = dict(layer=3)
gated = dict(every_n_layers=10, out_gain=20)
lora = dict(layers_to_transform=list(range(9, 30)))
feature_cache = "work_dirs/pair_features"
max_epochs = 2

my_table = dict(
    type="InstructionDataset",
    name="my_table",
    parser="conversation",
    source="visual",
    data_root="data/own",
    ann_file="train.jsonl",
    data_prefix=dict(img="../real"),
    pipeline=["${image_steps}", "${answer_steps}"],
)
train_dataloader = dict(dataset=dict(visual=["${my_table}"]))
test_dataloader = dict(
    dataset=dict(visual=[dict(my_table, ann_file="val.jsonl", pipeline=["${image_steps}", "${question_steps}"])])
)
