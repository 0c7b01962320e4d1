"""The page with a real model: its answers are those of the chat."""

import pytest

from mmgpt.apis import Chat
from tests.helpers.browser import require


@pytest.fixture
def real(chat_config, chat_checkpoint):  # noqa: F811
    """A page with the tiny random model: (chat, address)."""
    require("gradio")
    from mmgpt.webpage.chat_page import ChatPage
    from mmgpt.webpage.launch import private_folder, serving

    chat = Chat.from_config(chat_config, chat_checkpoint, "cpu", generation=dict(max_new_tokens=12))
    with private_folder() as folder, serving(ChatPage(chat, "real"), folder) as address:
        yield chat, address
    chat.close()


def test_two_turns_with_images_are_answered_as_the_chat_answers_them(real, browser, images):
    chat, address = real
    conversation, expected = chat.start(), []
    questions = {"what colour is the circle?": ["red.png", "blue.png"], "and the square <s>?": ["lime.png"]}
    for question, names in questions.items():
        expected.append(chat.ask(conversation, question, [images[name] for name in names]).strip())
    page = browser.new_page()
    page.goto(address)
    for number, (question, names) in enumerate(questions.items(), 1):
        page.set_input_files("#box input[type=file]", [images[name] for name in names])
        page.locator("#box .thumbnail-image").nth(len(names) - 1).wait_for()
        page.locator("#box textarea").fill(question)
        page.locator("#box textarea").press("Enter")
        page.locator(f"#turns .turn:nth-child({number}) .answer p").wait_for()
    assert page.locator("#turns .answer p").all_text_contents() == expected
    page.get_by_role("button", name="Prompt of the last answer").click()
    prompt = page.locator("#prompt textarea").input_value()
    assert prompt.count("<image>") == 3
    assert "Below is an instruction" in prompt
    assert "<s>?" in prompt
    assert not page.locator("#stats").text_content().endswith(" 0 of them cached")
    page.close()
