# NLVR and NLVR2, statements to be judged true or false: https://github.com/lil-lab/nlvr (its folders nlvr and
# nlvr2/data, as nlvr and nlvr2 here). NLVR's pictures are beside its annotations, NLVR2's photographs on request.
_judge = [
    dict(
        type="AddQuestion",
        questions=[
            "Is that so?",
            "Is that true of what is shown?",
            "Does this fit what you see?",
            "Would you call this statement true or false?",
            "Judge by what is shown: is this right?",
            "Can you confirm that by looking?",
            "True or false?",
        ],
    ),
    dict(type="OfferOptions", prob=0.5),
    "${image_steps}",
    "${answer_steps}",
]
# Drawn boxes, each statement with six pictures of them in different order, one of which is shown at a time.
nlvr = dict(
    type="InstructionDataset",
    name="nlvr",
    parser=dict(type="nlvr", split="train"),
    data_root="${data_root}",
    ann_file="nlvr/train/train.json",
    data_prefix=dict(img="nlvr/train/images"),
    pipeline=[dict(type="PickImage"), *_judge],
)
# Two photographs each, left and right.
_nlvr2 = dict(type="InstructionDataset", parser="nlvr2", data_root="${data_root}", pipeline=_judge)
nlvr2 = dict(
    name="nlvr2",
    ann_file="nlvr2/train.json",
    data_prefix=dict(img="nlvr2/images/train"),
    **_nlvr2,
)
# The same as one list, which the published loader reads:
# https://storage.googleapis.com/sfr-vision-language-research/datasets/nlvr_train.json
nlvr2_lavis = dict(
    name="nlvr2_lavis",
    ann_file="nlvr2/annotations/nlvr_train.json",
    data_prefix=dict(img="nlvr2"),
    **_nlvr2,
)
