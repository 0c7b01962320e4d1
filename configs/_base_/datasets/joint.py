# The published mix of visual and language-only instructions, one sample of each a batch.
_base_ = [
    "./pipelines.py",
    "./aokvqa.py",
    "./coco_caption.py",
    "./ocr_vqa.py",
    "./llava.py",
    "./llava_dialogue.py",
    "./minigpt4.py",
    "./dolly.py",
    "./alpaca_gpt4.py",
    "./baize.py",
]

train_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    dataset=dict(
        type="JointDataset",
        seed="${seed}",
        on_error="${on_error}",
        visual=[
            "${aokvqa}",
            "${coco_caption}",
            "${ocr_vqa}",
            "${llava_detail}",
            "${llava_reasoning}",
            "${llava_dialogue}",
            "${minigpt4}",
        ],
        language=["${dolly}", "${alpaca_gpt4}", "${baize}"],
    ),
    sampler=dict(type="DefaultSampler", shuffle=True),
    batch_sampler=dict(type="JointBatchSampler", language_batch_size=1),
    collate_fn=dict(type="collate_conversations"),
)
