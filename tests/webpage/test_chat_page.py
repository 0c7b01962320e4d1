"""The page in a real browser, with a fake chat.

A question with "slow" in it is answered for minutes, one with "fail" and one with "busy" not at all.
"""

import json
import time

from mmgpt.datasets.conversation import question_text
from tests.helpers.browser import require
from tests.helpers.fake_chat import FakeChat

expect = require("playwright.sync_api").expect
EVIL = "<script>alert(1)</script><b>bold</b> **md** ![x](http://example.com/x.png) &lt; ${alert(2)}"


def box(page):
    return page.locator("#box textarea")


def ask(page, text):
    """Asks when no answer is running: otherwise the question would wait in the box."""
    expect(button(page, "Submit")).to_be_visible()
    box(page).fill(text)
    box(page).press("Enter")


def answers(page):
    return page.locator("#turns .answer p")


def questions(page):
    return page.locator("#turns .question p")


def notice(page):
    return page.locator("#notice .notice span")


def attach(page, *files):
    before = page.locator("#box .thumbnail-image").count()
    page.set_input_files("#box input[type=file]", list(files))
    expect(page.locator("#box .thumbnail-image")).to_have_count(before + len(files))


def button(page, name):
    return page.get_by_role("button", name=name)


def open_settings(page):
    """Opens the settings. Gradio sets their first values just after it has shown them, over what was typed by then."""
    button(page, "Settings").click()
    page.get_by_label("System prompt").wait_for()
    page.evaluate("new Promise(done => setTimeout(done, 200))")  # in the page, whose thread may be busy


def grows(page):
    """Waits until the answer that is being written has changed three times."""
    text = ""
    for _ in range(3):
        page.wait_for_function("text => document.querySelector('#pending .answer p')?.textContent > text", arg=text)
        text = page.locator("#pending .answer p").text_content()


def at_rest(site):
    """Waits until no answer is running."""
    for _ in range(100):
        if site.chat.running == 0:
            return True
        time.sleep(0.05)
    return False


def stop(page, site):
    before = site.chat.stopped
    button(page, "Stop").click()
    expect(button(page, "Submit")).to_be_visible()
    assert at_rest(site)
    assert site.chat.stopped == before + 1


def colours(page, where):
    """The colour of each image as the browser shows it."""
    return page.locator(where).evaluate_all(
        """images => images.map(image => {
            const canvas = document.createElement("canvas");
            canvas.getContext("2d").drawImage(image, 0, 0);
            return [...canvas.getContext("2d").getImageData(5, 5, 1, 1).data].slice(0, 3).join(",");
        })"""
    )


def test_a_question_with_images_and_an_answer_that_grows_until_stopped(visit, site, images):
    page = visit()
    attach(page, images["lime.png"], images["red.png"])
    ask(page, "slow what?")
    grows(page)
    assert colours(page, "#pending img") == ["0,255,0", "255,0,0"]
    stop(page, site)
    expect(answers(page)).to_have_text([page.locator("#turns .answer p").text_content()])
    assert answers(page).text_content().startswith("slow what? 2 images slow")
    assert colours(page, "#turns img") == ["0,255,0", "255,0,0"]
    expect(page.locator("#stats")).to_contain_text("tokens/s · first after")
    expect(page.locator("#stats")).to_contain_text("stopped")
    expect(box(page)).to_be_focused()
    ask(page, "go on")
    expect(answers(page).nth(1)).to_have_text("go on 2 images")


def test_stop_works_also_after_retry_and_after_an_example(visit, site):
    page = visit()
    button(page, "a slow example").click()
    grows(page)
    stop(page, site)
    for _ in range(2):
        button(page, "Retry question 1").click()
        grows(page)
        stop(page, site)
    expect(answers(page)).to_have_count(1)


def test_an_example_is_answered(visit):
    page = visit()
    button(page, "an example").click()
    expect(answers(page)).to_have_text(["an example 1 images"])
    assert colours(page, "#turns img") == ["255,0,0"]


def test_a_second_image_in_a_later_turn(visit, site, images):
    page = visit()
    attach(page, images["blue.png"])
    ask(page, "one")
    expect(answers(page)).to_have_text(["one 1 images"])
    attach(page, images["red.png"])
    ask(page, "two")
    expect(answers(page)).to_have_text(["one 1 images", "two 2 images"])
    assert colours(page, "#turns img") == ["0,0,255", "255,0,0"]
    images = site.chat.submitted_questions[-1][0].images
    assert [image.getpixel((0, 0)) for image in images] == [(0, 0, 255), (255, 0, 0)]


def test_retry_drops_the_turns_after_it(visit):
    page = visit()
    for number, text in enumerate(["one", "two", "three"], 1):
        ask(page, text)
        expect(answers(page)).to_have_count(number)
    button(page, "Retry question 2").click()
    expect(answers(page)).to_have_text(["one 0 images", "two 0 images"])


def test_edit_replaces_a_question_and_keeps_its_images(visit, images):
    page = visit()
    attach(page, images["red.png"], images["blue.png"])
    ask(page, "one")
    expect(answers(page)).to_have_count(1)
    ask(page, "two")
    expect(answers(page)).to_have_count(2)
    button(page, "Edit question 1").click()
    expect(box(page)).to_have_value("one")
    expect(notice(page)).to_have_text("Your next question replaces question 1 and all after it.")
    expect(page.locator("#turns .replaced")).to_have_count(2)
    ask(page, "uno")
    expect(answers(page)).to_have_text(["uno 2 images"])
    expect(notice(page)).to_have_count(0)
    assert colours(page, "#turns img") == ["255,0,0", "0,0,255"]
    button(page, "Edit question 1").click()
    button(page, "Keep them").click()
    expect(box(page)).to_have_value("")
    ask(page, "two")
    expect(answers(page)).to_have_count(2)


def test_undo_puts_the_question_back_into_the_box(visit, images):
    page = visit()
    attach(page, images["lime.png"])
    ask(page, "one")
    button(page, "Undo question 1").click()
    expect(box(page)).to_have_value("one")
    expect(answers(page)).to_have_count(0)
    expect(button(page, "an example")).to_be_visible()
    box(page).press("Enter")
    expect(answers(page)).to_have_text(["one 1 images"])
    assert colours(page, "#turns img") == ["0,255,0"]


def test_new_chat_also_works_while_an_answer_is_running(visit, site, images):
    page = visit()
    attach(page, images["lime.png"])
    ask(page, "slow")
    grows(page)
    button(page, "New chat").click()
    expect(button(page, "an example")).to_be_visible()
    assert at_rest(site)
    expect(page.locator("#pending p")).to_have_count(0)
    ask(page, "anew")
    expect(answers(page)).to_have_text(["anew 0 images"])
    expect(questions(page)).to_have_count(1)


def test_a_question_waits_in_the_box_until_the_running_answer_has_ended(visit, site):
    page = visit()
    ask(page, "slow")
    grows(page)
    box(page).fill("next")
    box(page).press("Enter")
    box(page).press("Enter")
    expect(box(page)).to_have_value("next")
    button(page, "Stop").click()
    expect(answers(page).nth(1)).to_have_text("next 0 images")
    expect(notice(page)).to_have_count(0)
    expect(box(page)).to_have_value("")


def test_a_failed_question_does_not_replace_the_one_that_waits_in_the_box(visit, site):
    page = visit()
    ask(page, "slow fail")
    grows(page)
    box(page).fill("next")
    box(page).press("Enter")
    button(page, "Stop").click()
    expect(answers(page)).to_have_text(["next 0 images"])
    expect(notice(page)).to_have_count(0)
    expect(box(page)).to_have_value("")
    submitted = [
        question_text(conversation.turns[-1]["question"]) for conversation, *_ in site.chat.submitted_questions
    ]
    assert submitted[-2:] == ["slow fail", "next"]


def test_a_question_right_after_new_chat_is_answered(visit, site):
    page = visit()
    ask(page, "slow")
    grows(page)
    button(page, "New chat").click()
    expect(button(page, "an example")).to_be_visible()
    box(page).fill("anew")
    box(page).press("Enter")
    expect(answers(page)).to_have_text(["anew 0 images"])


def test_enter_in_an_empty_box_does_nothing(visit, site):
    page = visit()
    box(page).press("Enter")
    ask(page, "one")
    expect(answers(page)).to_have_text(["one 0 images"])
    expect(notice(page)).to_have_count(0)


def test_an_invalid_image_is_an_error_and_the_question_stays_in_the_box(visit, images):
    page = visit()
    attach(page, images["broken.png"])
    ask(page, "what?")
    expect(notice(page)).to_contain_text("Image 1:")
    assert str(images["broken.png"]) not in notice(page).text_content()
    expect(box(page)).to_have_value("what?")
    page.get_by_label("Remove").first.click()
    attach(page, images["drawing.svg"])
    box(page).press("Enter")
    expect(notice(page)).to_contain_text("SVG")
    page.get_by_label("Remove").first.click()
    attach(page, images["red.png"])
    box(page).press("Enter")
    expect(answers(page)).to_have_text(["what? 1 images"])
    expect(notice(page)).to_have_count(0)


def test_too_many_images_are_an_error(visit, images):
    page = visit()
    attach(page, *[images["red.png"]] * 9)
    ask(page, "what?")
    expect(notice(page)).to_have_text("9 images: at most 8 go with a question.")


def test_text_stays_text(visit):
    page = visit()
    ask(page, EVIL)
    expect(answers(page)).to_have_text([f"{EVIL} 0 images"])
    expect(questions(page)).to_have_text([EVIL])
    assert page.locator("#turns b, #turns script, #turns img").count() == 0
    button(page, "Edit question 1").click()
    expect(box(page)).to_have_value(EVIL)


def test_two_visitors_see_only_their_own_conversations(visit, site, images):
    first, second = visit(), visit()
    attach(first, images["red.png"])
    attach(second, images["blue.png"])
    ask(first, "slow first")
    ask(second, "slow second")
    grows(first)
    grows(second)
    for page in (first, second):
        button(page, "Stop").click()
        expect(answers(page)).to_have_count(1)
    assert at_rest(site)
    assert (colours(first, "#turns img"), colours(second, "#turns img")) == (["255,0,0"], ["0,0,255"])
    shown = [page.locator("#conversation").inner_html() for page in (first, second)]
    assert "second" not in shown[0]
    assert "first" not in shown[1]
    ask(first, "more")
    expect(answers(first).nth(1)).to_have_text("more 1 images")
    assert site.chat.submitted_questions[-1][0].images[0].getpixel((0, 0)) == (255, 0, 0)


def test_a_failure_is_an_error_and_the_next_question_works(visit):
    page = visit()
    ask(page, "busy")
    expect(notice(page)).to_have_text("4 questions wait already.")
    expect(box(page)).to_have_value("busy")
    ask(page, "fail")
    expect(notice(page)).to_contain_text("The model failed at this question.")
    expect(box(page)).to_have_value("fail")
    expect(questions(page)).to_have_count(0)
    ask(page, "works")
    expect(answers(page)).to_have_text(["works 0 images"])
    expect(notice(page)).to_have_count(0)


def test_settings_template_and_prompt(visit, site):
    page = visit()
    open_settings(page)
    page.get_by_label("number input for Temperature").fill("0.5")
    page.get_by_label("Seed").fill("seven")
    ask(page, "one")
    expect(notice(page)).to_contain_text("Seed: a whole number")
    page.get_by_label("Seed").fill("7")
    page.get_by_label("Prompt template").click()
    page.get_by_role("option", name="instruction").click()
    start = page.get_by_label("System prompt")
    expect(start).to_have_value("Below is an instruction that describes a task. Write a response that appropriately "
                                "completes the request.\n\n")  # fmt: skip
    start.fill("Answer <kindly>.\n\n")
    box(page).press("Enter")
    expect(answers(page)).to_have_count(1)
    _, generation, seed = site.chat.submitted_questions[-1]
    assert (generation["temperature"], generation["do_sample"], seed) == (0.5, True, 7)
    button(page, "Prompt of the last answer").click()
    prompt = "Answer <kindly>.\n\n### Instruction:\none\n\n### Response:\n"
    expect(page.locator("#prompt textarea")).to_have_value(prompt)


def test_leaving_the_list_of_templates_keeps_the_typed_system_prompt(visit):
    page = visit()
    open_settings(page)
    start = page.get_by_label("System prompt")
    start.fill("Answer in one word.")
    page.get_by_label("Prompt template").click()
    start.click()
    page.wait_for_timeout(300)
    expect(start).to_have_value("Answer in one word.")


def test_copy_and_save(visit, browser, images, tmp_path):
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    attach(page, images["red.png"])
    ask(page, "a <b> & c")
    expect(answers(page)).to_have_count(1)
    button(page, "Copy answer 1").click()
    expect(button(page, "Copy answer 1")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "a <b> & c 1 images"
    page.get_by_role("button", name="Copy", exact=True).click()
    page.wait_for_function("navigator.clipboard.readText().then(text => text.startsWith('You'))")
    assert page.evaluate("navigator.clipboard.readText()") == "You [1 image]: a <b> & c\n\nModel: a <b> & c 1 images"
    with page.expect_download() as saved:
        button(page, "Save JSON").click()
    messages = json.loads(saved.value.path().read_text())["messages"]
    assert messages[1] == {"role": "assistant", "content": "a <b> & c 1 images"}
    with page.expect_download() as saved:
        button(page, "Save page").click()
    assert saved.value.suggested_filename == "conversation.html"
    saved.value.save_as(tmp_path / "conversation.html")
    saved_page = browser.new_page()
    saved_page.goto((tmp_path / "conversation.html").as_uri())
    expect(saved_page.locator(".question p")).to_have_text("a <b> & c")
    assert colours(saved_page, "img") == ["255,0,0"]
    saved_page.close()


def test_the_keyboard_is_enough(visit):
    page = visit()
    expect(page.get_by_role("textbox", name="Question")).to_be_focused()
    page.keyboard.type("two")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("lines")
    page.keyboard.press("Enter")
    expect(questions(page)).to_have_text(["two\nlines"])
    expect(answers(page)).to_have_count(1)
    expect(box(page)).to_be_focused()
    unnamed = "button => button.checkVisibility() && !(button.ariaLabel || button.innerText).trim()"
    assert page.locator("button").evaluate_all(f"buttons => buttons.filter({unnamed}).map(b => b.outerHTML)") == []
    reached = []
    for _ in range(25):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.ariaLabel || document.activeElement.innerText").strip())
    expected = {
        "Edit question 1",
        "Copy answer 1",
        "Retry question 1",
        "Undo question 1",
        "New chat",
        "Copy",
        "Save page",
    }
    assert expected <= set(reached), reached
    box(page).focus()
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.ariaLabel") == "Upload a file"


def test_on_a_phone_all_fits_and_the_box_is_in_sight(visit, images):
    page = visit(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    attach(page, images["red.png"])
    for number in range(1, 4):
        ask(page, "x" * 300 + "\n" * 5)
        expect(answers(page)).to_have_count(number)
    expect(button(page, "Undo question 3")).to_be_in_viewport()  # it scrolls along
    button(page, "Settings").tap()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.evaluate("scrollTo(0, 0)")
    expect(box(page)).to_be_in_viewport()


def test_closing_the_page_stops_the_model(visit, site):
    page = visit()
    ask(page, "slow")
    grows(page)
    before = site.chat.stopped
    page.context.close()
    assert at_rest(site)
    assert site.chat.stopped == before + 1


def test_questions_wait_in_a_queue_and_are_refused_when_it_is_full(browser, monkeypatch):
    from mmgpt.webpage import chat_page
    from mmgpt.webpage.launch import private_folder, serving

    monkeypatch.setattr(chat_page, "MAX_RUNNING", 1)
    monkeypatch.setattr(chat_page, "MAX_QUEUED", 1)
    with private_folder() as folder, serving(chat_page.ChatPage(FakeChat(), "small"), folder) as address:
        contexts = [browser.new_context() for _ in range(3)]
        first, second, third = (context.new_page() for context in contexts)
        for page, seen in ((first, "#pending .answer"), (second, "#stats .progress-text"), (third, ".toast-body")):
            page.goto(address)
            ask(page, "slow question")
            page.locator(seen).wait_for()
        expect(second.locator("#stats")).to_contain_text("queue: 1/1")
        expect(third.locator(".toast-body")).to_contain_text("busy")
        expect(box(third)).to_have_value("slow question")
        button(first, "Stop").click()
        grows(second)
        button(second, "Stop").click()
        ask(third, "now")
        expect(answers(third)).to_have_text(["now 0 images"])
        for context in contexts:
            context.close()
