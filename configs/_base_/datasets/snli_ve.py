# SNLI-VE (arXiv:1901.06706): whether an image entails a statement. Its images are Flickr30k's.
snli_ve = dict(
    type="InstructionDataset",
    name="snli_ve",
    parser="snli_ve",
    data_root="${data_root}",
    ann_file=dict(path="snli_ve/snli_ve_train.jsonl", source="SNLI-VE (github.com/necla-ml/SNLI-VE)"),
    data_prefix=dict(
        img=dict(
            path="flickr30k/flickr30k-images", source="Flickr30k's images (shannon.cs.illinois.edu/DenotationGraph)"
        )
    ),
    pipeline=[
        dict(
            type="AddQuestion",
            questions=[
                "How does this statement relate to the picture?",
                "Does the picture imply this, leave it open or rule it out?",
                "Given what is shown, what holds for this statement?",
                "What does the image say about this claim?",
                "Compare the statement with the photo: which label fits?",
                "Does this follow from the scene?",
                "How well does the image support this?",
            ],
        ),
        # The options are always shown: nobody guesses these three words from the question.
        dict(type="OfferOptions", prob=1.0),
        "${image_steps}",
        "${answer_steps}",
    ],
)
