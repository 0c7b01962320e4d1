# NLVR and NLVR2, statements to be judged true or false. NLVR's images are beside its annotations, NLVR2's are sent on
# request.
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
# NLVR: drawn boxes. Each statement has six images of them in different order, one of which is shown at a time.
nlvr = dict(
    type="InstructionDataset",
    name="nlvr",
    parser=dict(type="nlvr", split="train"),
    data_root="${data_root}",
    ann_file=dict(path="nlvr/train/train.json", source="NLVR (github.com/lil-lab/nlvr, its folder nlvr)"),
    data_prefix=dict(img=dict(path="nlvr/train/images", source="NLVR (github.com/lil-lab/nlvr, its folder nlvr)")),
    pipeline=[dict(type="PickImage"), *_judge],
)
# NLVR2: each statement is about two photographs, left and right.
_nlvr2 = dict(
    type="InstructionDataset",
    parser=dict(path="nlvr2", source="NLVR2's photographs, on request (github.com/lil-lab/nlvr)"),
    data_root="${data_root}",
    pipeline=_judge,
)
nlvr2 = dict(
    name=dict(path="nlvr2", source="NLVR2's photographs, on request (github.com/lil-lab/nlvr)"),
    ann_file=dict(path="nlvr2/train.json", source="NLVR2 (github.com/lil-lab/nlvr, its folder nlvr2/data)"),
    data_prefix=dict(
        img=dict(path="nlvr2/images/train", source="NLVR2's photographs, on request (github.com/lil-lab/nlvr)")
    ),
    **_nlvr2,
)
# NLVR2 as one list, which the published loader reads.
nlvr2_lavis = dict(
    name="nlvr2_lavis",
    ann_file=dict(
        path="nlvr2/annotations/nlvr_train.json",
        source="storage.googleapis.com/sfr-vision-language-research/datasets/nlvr_train.json",
    ),
    data_prefix=dict(img=dict(path="nlvr2", source="NLVR2's photographs, on request (github.com/lil-lab/nlvr)")),
    **_nlvr2,
)
