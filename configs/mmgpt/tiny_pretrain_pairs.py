# A third pass: mostly statements that tell the things in an image apart (pairs.json), which are learned last.
_base_ = "./tiny_pretrain_more.py"

lr = 1e-3
max_epochs = 3
warmup_iters = 50

statement_steps = [dict(type="JoinAnswers", count=5), "${image_steps}", "${answer_steps}"]
statements = dict(sample=6000)
pairs = dict(
    type="InstructionDataset",
    parser="coco_caption",
    data_root="${data_root}",
    ann_file="pretrain/pairs.json",
    data_prefix=dict(img="images"),
    pipeline="${statement_steps}",
)
train_dataloader = dict(dataset=dict(visual=["${pairs}", "${statements}"]))
