"""FormatPrompt: the system text of a sample."""

import pytest

from mmgpt.datasets.prompts import SHORT
from mmgpt.datasets.transforms import FormatPrompt

IMAGE = {"type": "image"}


def prompt_of(question, images, **more):
    sample = {"turns": [{"question": question, "answer": "a"}, {"question": "and?"}], "images": images, **more}
    return FormatPrompt(SHORT)(sample)["prompt"]


def test_system_text_goes_before_the_first_question_after_its_images():
    expected = "### Image:\n<image>\n\n### Instruction:\nBe brief.\n\nwhat?\n\n### Response:\na<eos>\n\n"
    expected += "### Instruction:\nand?\n\n### Response:\n"
    assert prompt_of("what?", ["1.jpg"], system="Be brief.") == expected
    assert prompt_of([IMAGE, {"type": "text", "text": "what?"}], ["1.jpg"], system="Be brief.") == expected
    assert prompt_of("what?", ["1.jpg"], system="") == expected.replace("Be brief.\n\n", "")


@pytest.mark.parametrize("system", [3, None, ["Be brief."]])
def test_a_system_text_that_is_no_text(system):
    with pytest.raises(ValueError, match=r"system text \(system_prompt\) has to be a text, got"):
        FormatPrompt(SHORT, system=system)
