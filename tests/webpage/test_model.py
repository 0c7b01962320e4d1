"""The page with a real model: what stands on it is what the chat says."""

import pytest

from mmgpt.apis import Chat
from tests.helpers.browser import needed


@pytest.fixture
def real(chat_config, chat_checkpoint):  # noqa: F811
    """A page with the tiny random model: (chat, address)."""
    needed("gradio")
    from mmgpt.webpage.launch import private_folder, serving
    from mmgpt.webpage.page import Page

    chat = Chat.from_config(chat_config, chat_checkpoint, "cpu", generation=dict(max_new_tokens=12))
    with private_folder() as folder, serving(Page(chat, "real"), folder) as address:
        yield chat, address
    chat.close()


def test_two_turns_with_pictures_are_answered_as_the_chat_answers_them(real, browser, pictures):
    chat, address = real
    conversation, wanted = chat.start(), []
    asked = {"what colour is the circle?": ["red.png", "blue.png"], "and the square <s>?": ["lime.png"]}
    for question, names in asked.items():
        wanted.append(chat.ask(conversation, question, [pictures[name] for name in names]).strip())
    page = browser.new_page()
    page.goto(address)
    for number, (question, names) in enumerate(asked.items(), 1):
        page.set_input_files("#box input[type=file]", [pictures[name] for name in names])
        page.locator("#box .thumbnail-image").nth(len(names) - 1).wait_for()
        page.locator("#box textarea").fill(question)
        page.locator("#box textarea").press("Enter")
        page.locator(f"#talk .turn:nth-child({number}) .answer p").wait_for()
    assert page.locator("#talk .answer p").all_text_contents() == wanted
    page.get_by_role("button", name="Prompt of the last answer").click()
    prompt = page.locator("#prompt textarea").input_value()
    assert prompt.count("<image>") == 3 and "Below is an instruction" in prompt and "<s>?" in prompt
    assert not page.locator("#figures").text_content().endswith(" 0 of them kept from before")
    page.close()
