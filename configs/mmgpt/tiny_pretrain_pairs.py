# A second, slower pass of tiny_pretrain.py from the base that the first one made, over new pictures: half of it are
# statements that tell the things in a picture apart (pairs.json), which are learned last.
_base_ = "./tiny_pretrain.py"

flamingo_weights = "checkpoints/tiny/flamingo.safetensors"
language = dict(_delete_=True, path="${language_model}")
data_root = "data/tiny_pretrain_more"
lr = 1.5e-3

statement_steps = [dict(type="JoinAnswers", count=5), "${image_steps}", "${answer_steps}"]
statements = dict(sample=12000)
pairs = dict(
    type="InstructionDataset",
    parser="coco_caption",
    data_root="${data_root}",
    ann_file="pretrain/pairs.json",
    data_prefix=dict(img="images"),
    pipeline="${statement_steps}",
)
train_dataloader = dict(dataset=dict(visual=["${pairs}", "${statements}"]))
