# lora_joint, and every further source of configs/_base_/datasets. Each visual one gives about 20 000 samples an epoch,
# so that VQAv2, GQA, CLEVR and SNLI-VE, of 440 000 to 940 000, do not drown the others. 55 % of the visual samples are
# then from these sources, 45 % from the published mix; of the language-only ones 30 % are from ShareGPT.
# A source whose files are not there is left out by `clevr = dict(weight=0)`, or --cfg-options clevr.weight=0.
_base_ = [
    "./lora_joint.py",
    "../_base_/datasets/vqav2.py",
    "../_base_/datasets/okvqa.py",
    "../_base_/datasets/gqa.py",
    "../_base_/datasets/clevr.py",
    "../_base_/datasets/textvqa.py",
    "../_base_/datasets/nlvr.py",
    "../_base_/datasets/snli_ve.py",
    "../_base_/datasets/coco_dialogue.py",
    "../_base_/datasets/llava_interleave.py",
    "../_base_/datasets/sharegpt.py",
]

vqav2 = dict(sample=20000)
okvqa = dict(weight=2)  # OK-VQA has 9 000 questions, each of which comes twice.
gqa = dict(sample=20000)
clevr = dict(sample=20000)
textvqa = dict(sample=20000)
nlvr = dict(weight=2)  # NLVR has 12 000 statements, each of which comes twice, with another of its six images.
nlvr2 = dict(sample=20000)
snli_ve = dict(sample=20000)
coco_dialogue = dict(sample=20000)
llava_interleave = dict(sample=20000)
sharegpt = dict(sample=50000)

# In MMEngine's configs, `_base_` below is the config that the files above make together.
train_dataloader = dict(
    dataset=dict(
        visual=[
            *_base_.train_dataloader.dataset.visual,
            "${vqav2}",
            "${okvqa}",
            "${gqa}",
            "${clevr}",
            "${textvqa}",
            "${nlvr}",
            "${nlvr2}",
            "${snli_ve}",
            "${coco_dialogue}",
            "${llava_interleave}",
        ],
        language=[*_base_.train_dataloader.dataset.language, "${sharegpt}"],
    )
)
