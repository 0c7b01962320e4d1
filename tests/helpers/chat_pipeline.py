"""The chat pipeline of the tiny experiment."""

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def pipeline(tokenizer, max_length=160):
    return [
        dict(type="PrepareImages", size=32, mean=MEAN, std=STD),
        dict(type="FormatPrompt", template="instruction", open_last=True),
        dict(type="TokenizeSegments", tokenizer=tokenizer, max_length=max_length),
    ]
