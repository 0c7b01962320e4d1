# SNLI-VE, whether an image entails a statement: https://github.com/necla-ml/SNLI-VE (snli_ve_train.jsonl); its images
# are Flickr30k's: https://shannon.cs.illinois.edu/DenotationGraph (flickr30k/flickr30k-images).
snli_ve = dict(
    type="InstructionDataset",
    name="snli_ve",
    parser="snli_ve",
    data_root="${data_root}",
    ann_file="snli_ve/snli_ve_train.jsonl",
    data_prefix=dict(img="flickr30k/flickr30k-images"),
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
        # Always: nobody guesses these three words from the question.
        dict(type="OfferOptions", prob=1.0),
        "${image_steps}",
        "${answer_steps}",
    ],
)
