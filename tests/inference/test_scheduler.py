"""The scheduler against answers without a prefix cache: over turns, in batches, after stops and failures."""

import threading
import time
from contextlib import closing

import pytest
import torch
from PIL import Image

from mmgpt.apis import Chat, Conversation
from mmgpt.inference.answer import Busy
from mmgpt.inference.decoding_batch import DecodingBatch
from mmgpt.inference.scheduler import Scheduler
from mmgpt.inference.static_batch import StaticDecodingBatch
from mmgpt.models.memory.cpu_linear import PackedLinear
from tests.helpers.chat_pipeline import pipeline
from tests.helpers.transformers_generate import reference_generate

# A random model says bytes that are no characters; words can be compared as text.
WORDS = [[i] for i in range(3, 259)]
LENGTH = 8


@pytest.fixture(scope="module", params=["latest", "next"])
def chat(request, chat_config):
    # Before tuning: the random LoRA of chat_checkpoint makes attention so sharp that rounding decides between beams.
    options = {"model.module.image_attention": request.param}
    torch.manual_seed(0)  # whatever tests ran before: the resampler and the gated blocks are random
    return Chat.from_config(chat_config, None, "cpu", options, dict(bad_words_ids=WORDS, max_new_tokens=LENGTH))


def uncached(chat, **scheduler):
    """A chat with the same model, and without a prefix cache."""
    return Chat(chat.model, chat.pipeline, chat.generation, dict(scheduler, cache_bytes=0))


def reference(chat, conversation, **generation):
    """Ids and text of an answer by transformers' generate, of the whole conversation at once."""
    ids = reference_generate(chat.model, **chat.prepare(conversation), **{**chat.generation, **generation})
    return chat.model.tokenizer.decode(ids[0], skip_special_tokens=True).strip()


def picture(colour):
    return Image.new("RGB", (40, 40), colour)


class Looks:
    """Counts the images that go through a model's tower and the tokens that go through its language model."""

    def __init__(self, chat, monkeypatch):
        self.images = self.tokens = 0
        flamingo, language = chat.flamingo, chat.flamingo.language
        encode, forward = flamingo.encode_images, language.model.forward

        def counted_encode(pixels, *args, **kwargs):
            self.images += pixels.shape[1]
            return encode(pixels, *args, **kwargs)

        def counted_forward(*args, **kwargs):
            self.tokens += kwargs["input_ids"].shape[1]
            return forward(*args, **kwargs)

        monkeypatch.setattr(flamingo, "encode_images", counted_encode)
        monkeypatch.setattr(language.model, "forward", counted_forward)


TURNS = [
    ("what colour?", ["red"]),
    ("one or two?", []),
    ("is it a circle or a square?", ["blue", "green"]),
    ("yes?", []),
]


def test_turns_with_kept_keys_equal_turns_computed_again(chat):
    chat = Chat(chat.model, chat.pipeline, chat.generation)
    conversation, cached = chat.start(), []
    for question, colours in TURNS:
        asked = conversation.with_question(question, [picture(colour) for colour in colours])
        answer = chat.submit(asked)
        assert answer.text() == reference(chat, asked) == uncached(chat).submit(asked).text()
        cached.append(answer.cached_tokens / answer.prompt_tokens)
        assert chat.ask(conversation, question, [picture(colour) for colour in colours]) == reference(chat, asked)
    assert cached[0] == 0
    assert cached[3] > 0.5
    # An edited turn, and the last one again.
    edited = Conversation(conversation.turns[:1], conversation.images[:1]).with_question("is the square blue?")
    again = Conversation(
        [*conversation.turns[:3], {"question": conversation.turns[3]["question"]}], conversation.images
    )
    for asked in (edited, again, edited):
        answer = chat.submit(asked)
        assert answer.text() == reference(chat, asked)
        assert answer.cached_tokens > 0


def test_a_first_image_in_a_later_turn(chat):
    conversation = chat.start()
    for question, colours in reversed(TURNS):
        asked = conversation.with_question(question, [picture(colour) for colour in colours])
        assert chat.submit(asked).text() == reference(chat, asked)
        chat.ask(conversation, question, [picture(colour) for colour in colours])


def test_another_image_is_another_beginning(chat):
    answers = []
    for colour in ("red", "blue", "red"):
        asked = chat.start().with_question("what colour is the circle?", [picture(colour)])
        answer = chat.submit(asked)
        assert answer.text() == reference(chat, asked)
        answers.append(answer)
    assert answers[1].cached_tokens < answers[1].prompt_tokens - 10
    assert answers[2].cached_tokens == answers[2].prompt_tokens - 1


def test_only_what_is_new_is_computed(chat, monkeypatch):
    chat = Chat(chat.model, chat.pipeline, chat.generation)
    looks, conversation = Looks(chat, monkeypatch), chat.start()
    for number, (question, colours) in enumerate(TURNS):
        looks.images = looks.tokens = 0
        answer = chat.submit(conversation.with_question(question, [picture(colour) for colour in colours]))
        answer.text()
        assert looks.images == len(colours)
        # The last token of an answer is not read before the next question.
        assert looks.tokens == answer.prompt_tokens - answer.cached_tokens + answer.completion_tokens - 1
        chat.ask(conversation, question, [picture(colour) for colour in colours])
        assert looks.images == len(colours)
        if number == 3:
            assert answer.prompt_tokens - answer.cached_tokens < 40 < answer.prompt_tokens


def questions():
    """Twelve questions with 0, 1 or 2 images, as conversations."""
    words = ["red", "blue", "circle", "square", "one", "two"]
    colours = [[], ["red"], ["blue", "green"]]
    made = [(f"is it {word}? {number * 'yes '}", colours[number % 3]) for number, word in enumerate(words * 2)]
    return [Conversation().with_question(text, [picture(colour) for colour in some]) for text, some in made]


def test_a_batch_is_answered_as_one_by_one(chat):
    asked = questions()
    expected = [reference(chat, each) for each in asked]
    for max_batch in (3, 16):
        many = uncached(chat, max_batch=max_batch)
        with many.scheduler.paused():  # so that all of them wait
            answers = [many.submit(each) for each in asked]
        assert [answer.text() for answer in answers] == expected


def test_questions_join_texts_that_grow(chat):
    many = uncached(chat)
    settings = dict(max_new_tokens=40, min_new_tokens=40)
    first = many.submit(questions()[1], settings)
    next(iter(first))
    assert [many.submit(each).text() for each in questions()[:4]] == [reference(chat, each) for each in questions()[:4]]
    first.text()
    assert first.completion_tokens == 40


def test_settings_of_one_question_do_not_touch_another(chat):
    asked, drawn = questions()[4], dict(do_sample=True, temperature=2.0, top_p=0.9)
    alone = [chat.submit(asked, drawn, seed=seed).text() for seed in (1, 2, 1)]
    assert alone[0] == alone[2] != alone[1]
    many = uncached(chat)
    with many.scheduler.paused():
        answers = [many.submit(asked, drawn, seed=1), many.submit(asked), many.submit(asked, drawn, seed=2)]
        answers.append(many.submit(asked, dict(max_new_tokens=2)))
        answers.append(many.submit(asked, dict(num_beams=3)))
    texts = [answer.text() for answer in answers]
    assert texts[:3] == [alone[0], reference(chat, asked), alone[1]]
    assert answers[3].completion_tokens == 2
    assert answers[3].finish_reason == "length"
    assert texts[4] == reference(chat, asked, num_beams=3) != texts[1]


@pytest.mark.parametrize("scores", ["answer", "text"])
def test_beams_are_decoded_together_with_other_requests(chat, scores, monkeypatch):
    many = Chat(chat.model, chat.pipeline, dict(chat.generation, beam_scores=scores), dict(max_batch=12))
    rows, step = [], DecodingBatch.step

    def counted(batch, tokens):
        rows.append(len(tokens))
        return step(batch, tokens)

    monkeypatch.setattr(DecodingBatch, "step", counted)
    beams = [3, 3, 1, 3, 3, 3, 2, 1, 3]
    with many.scheduler.paused():
        answers = [many.submit(questions()[i], dict(num_beams=n)) for i, n in enumerate(beams)]
    texts = [answer.text() for answer in answers]
    monkeypatch.undo()
    assert texts == [reference(many, questions()[i], num_beams=n) for i, n in enumerate(beams)]
    assert max(rows) <= 12
    assert sum(size > 6 for size in rows) > LENGTH / 2
    assert all(answer.completion_tokens for answer in answers)
    assert many.stats()["completion_tokens"] == sum(answer.completion_tokens for answer in answers)


@pytest.mark.parametrize("scores", ["answer", "text"])
def test_beams_start_from_what_is_kept(chat, scores):
    chat = Chat(chat.model, chat.pipeline, dict(chat.generation, beam_scores=scores))
    conversation = chat.start()
    for question, colours in TURNS:
        asked = conversation.with_question(question, [picture(colour) for colour in colours])
        answer = chat.submit(asked, dict(num_beams=3))
        assert answer.text() == reference(chat, asked, num_beams=3)
        chat.ask(conversation, question, [picture(colour) for colour in colours])
    assert answer.cached_tokens > answer.prompt_tokens / 2
    assert answer.completion_tokens <= LENGTH


def test_pieces_are_the_text(chat):
    for generation in ({}, dict(bad_words_ids=None, suppress_tokens=None)):
        asked = questions()[2]
        pieces = [piece.text for piece in chat.submit(asked, generation)]
        assert "".join(pieces) == chat.submit(asked, generation).text()
        assert len(pieces) > 1


def test_a_stop_sequence(chat):
    asked = questions()[2]
    whole = chat.submit(asked).text()
    stop = whole[len(whole) // 2 :][:3]
    answer = chat.submit(asked, stop=[stop])
    assert answer.text() == whole[: whole.index(stop)].rstrip()
    assert answer.finish_reason == "stop"
    beams = reference(chat, asked, num_beams=3)
    assert chat.submit(asked, dict(num_beams=3), stop=[beams[3:5]]).text() == beams[: beams.index(beams[3:5])].rstrip()


def test_log_probabilities_are_the_models_own(chat):
    asked = questions()[1]
    answer = chat.submit(asked, dict(repetition_penalty=1.5), top_logprobs=2)
    pieces = list(answer)
    tokens = [token for piece in pieces for token in piece.tokens]
    assert len(tokens) == answer.completion_tokens
    inputs = chat.prepare(asked)
    logits = chat.model(**inputs, mode="tensor")[0, -1].log_softmax(-1)
    assert tokens[0].logprob == pytest.approx(logits[tokens[0].id].item(), abs=1e-4)
    values, ids = logits.topk(2)
    assert [each[0] for each in tokens[0].top] == ids.tolist()
    assert [each[2] for each in tokens[0].top] == pytest.approx(values.tolist(), abs=1e-4)
    with pytest.raises(ValueError, match="num_beams=1"):
        chat.submit(asked, dict(num_beams=2), top_logprobs=1)


LONG = dict(max_new_tokens=250, min_new_tokens=250)


def test_a_cancelled_answer_stops_the_model(chat):
    answer = chat.submit(questions()[1], LONG)
    next(iter(answer))
    answer.cancel()
    assert answer.wait()
    assert answer.finish_reason == "cancelled"
    assert 1 <= answer.completion_tokens < 200
    before = chat.stats()["completion_tokens"]
    time.sleep(0.1)
    assert chat.stats()["completion_tokens"] == before
    assert chat.stats()["running"] == 0
    beams = chat.submit(questions()[1], dict(LONG, num_beams=3))
    beams.cancel()
    assert beams.wait()
    assert beams.finish_reason == "cancelled"


def test_closing_a_stream_frees_the_model(chat):
    conversation = chat.start()
    with closing(chat.stream(conversation, "what?", generation=LONG)) as pieces:
        said = next(pieces)
    assert chat.stats()["running"] == 0
    assert said.strip()
    assert conversation.turns[0]["answer"].startswith(said.strip())


def test_too_many_questions(chat):
    many = uncached(chat, max_waiting=2)
    with many.scheduler.paused():
        waiting = [many.submit(questions()[0])]
        with pytest.raises(Busy, match="2 questions wait already"):
            for _ in range(4):  # one of them may have been taken before the pause
                waiting.append(many.submit(questions()[0]))
    assert all(answer.text() for answer in waiting)
    assert many.stats()["requests"] == len(waiting)
    assert many.stats()["waiting"] == 0


def test_a_listener_that_fails_ends_its_own_answer_only(chat):
    def fail(event):
        raise RuntimeError("the client is gone")

    lost, other = chat.submit(questions()[1], LONG, listener=fail), chat.submit(questions()[0])
    assert other.text() == reference(chat, questions()[0])
    assert lost.wait()
    assert lost.finish_reason == "cancelled"
    assert lost.completion_tokens < 200


def test_close_cancels_what_runs_and_waits(chat):
    many = uncached(chat, max_batch=1)
    answers = [many.submit(questions()[1], LONG) for _ in range(3)]
    many.close()
    assert [answer.finish_reason for answer in answers] == ["cancelled"] * 3
    assert many.submit(questions()[0]).text() == reference(chat, questions()[0])


def test_a_failing_step_is_the_end_of_its_answers_only(chat, monkeypatch):
    many = uncached(chat)
    forward, broken = many.flamingo.language.model.forward, threading.Event()

    def fail(*args, **kwargs):
        if broken.is_set():
            raise RuntimeError("out of memory")
        return forward(*args, **kwargs)

    monkeypatch.setattr(many.flamingo.language.model, "forward", fail)
    answers = [many.submit(each, LONG) for each in questions()[:2]]
    for answer in answers:
        next(iter(answer))
    broken.set()
    for answer in answers:
        with pytest.raises(RuntimeError, match="out of memory"):
            answer.text()
        assert not answer.wait()
    broken.clear()
    assert many.submit(questions()[0]).text() == reference(chat, questions()[0])
    assert many.stats()["failed"] == 2


def test_a_static_cache_gives_the_same_answers_again_and_again(chat):
    static = uncached(chat, static_cache=True, max_batch=12)
    beams = [3, 1, 1, 2]
    expected = [reference(chat, questions()[i], num_beams=n) for i, n in enumerate(beams)]
    for _ in range(2):
        with static.scheduler.paused():
            answers = [static.submit(questions()[i], dict(num_beams=n)) for i, n in enumerate(beams)]
        assert [answer.text() for answer in answers] == expected
    (batch,) = static.scheduler._static.values()
    assert isinstance(batch, StaticDecodingBatch)
    assert static.ask(static.start(), "what colour?") == chat.ask(chat.start(), "what colour?")
    assert static.scheduler._static[None] is batch


def test_a_static_batch_is_not_used_again_after_a_failing_step(chat, monkeypatch):
    static = uncached(chat, static_cache=True)
    assert static.submit(questions()[0]).text() == reference(chat, questions()[0])
    batch = static.scheduler._static[None]
    monkeypatch.setattr(batch, "step", lambda tokens: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        static.submit(questions()[0]).text()
    assert static.submit(questions()[0]).text() == reference(chat, questions()[0])
    assert static.scheduler._static[None] is not batch


def test_the_compiler_gets_plain_layers_that_still_have_gradients(chat_config):
    scheduler, generation = dict(static_cache=True, compile=dict(backend="eager")), dict(max_new_tokens=2)
    chat = Chat.from_config(chat_config, device="cpu", generation=generation, precision="bfloat16", scheduler=scheduler)
    chat.submit(questions()[0]).text()
    language = chat.flamingo.language
    assert not any(isinstance(module, PackedLinear) for module in language.modules())
    assert not any(weight.is_inference() for weight in language.parameters())
    # The one that traced before this chat's own thread, see `allow_compiling_in_threads`.
    assert any(thread.name == "tracing" for thread in threading.enumerate())


def test_wrong_settings_of_a_static_cache_are_refused(chat):
    with pytest.raises(ValueError, match="compile=True is for the steps of a static cache: set static_cache=True"):
        Scheduler(chat.model, compile=True)
    with pytest.raises(ValueError, match="compile=.*'quick'.* is neither a bool nor arguments of torch.compile"):
        Scheduler(chat.model, static_cache=True, compile=dict(mode="quick"))


def test_a_failing_choice_is_the_end_of_one_answer(chat):
    many = uncached(chat)
    with many.scheduler.paused():
        answers = [many.submit(each) for each in questions()[:3]]
        request = many.scheduler._waiting[1] if len(many.scheduler._waiting) == 3 else many.scheduler._waiting[0]
        sampler, calls = request.sampler, []

        def fail(ids, logits):
            calls.append(ids)
            if len(calls) == 3:
                raise RuntimeError("probabilities are no numbers")
            return sampler(ids, logits)

        fail.ends, fail.max_new_tokens, fail.top_logprobs = sampler.ends, sampler.max_new_tokens, None
        request.sampler = fail
    with pytest.raises(RuntimeError, match="no numbers"):
        answers[1].text()
    assert [answers[i].text() for i in (0, 2)] == [reference(chat, questions()[i]) for i in (0, 2)]


@pytest.mark.parametrize("beams", [1, 2])
def test_a_failing_prefill_is_the_end_of_one_answer(chat, beams):
    many = uncached(chat)
    settings = dict(num_beams=beams)
    with many.scheduler.paused():
        answers = [many.submit(questions()[i], settings) for i in (0, 1, 4)]
        for request in many.scheduler._requests():
            if request.answer is answers[1]:
                request.pixels = torch.zeros(1, 3, 7)
    with pytest.raises((RuntimeError, ValueError)):
        answers[1].text()
    expected = [reference(chat, questions()[i], **settings) for i in (0, 4)]
    assert [answers[i].text() for i in (0, 2)] == expected
    assert many.stats()["failed"] == 1


@pytest.mark.parametrize("generation, message", [
    (dict(temperature=-1.0, do_sample=True), "temperature"),
    (dict(top_p=7.0, do_sample=True), "top_p"),
    (dict(max_new_tokens=0), "max_new_tokens"),
    (dict(max_new_tokns=5), "max_new_tokns"),
])  # fmt: skip
def test_a_bad_setting_is_refused_before_anything_runs(chat, generation, message):
    before = chat.stats()["requests"]
    with pytest.raises(ValueError, match=message):
        chat.submit(questions()[0], generation)
    assert chat.stats()["requests"] == before


def test_an_answer_ends_where_the_model_can_read_no_further(chat_config, tiny_llama):
    chat = Chat.from_config(chat_config, generation=dict(max_new_tokens=10_000, min_new_tokens=10_000))
    longest = chat.flamingo.language.config.max_position_embeddings
    answer = chat.submit(questions()[0])
    answer.text()
    assert answer.prompt_tokens + answer.completion_tokens == longest
    assert answer.finish_reason == "length"
    for limit in (longest + 400, None):
        longer = Chat(chat.model, pipeline_of(tiny_llama, limit), chat.generation)
        with pytest.raises(ValueError, match=rf"a prompt of \d+ tokens, the limit is {longest - 1}"):
            longer.submit(Conversation().with_question("yes " * longest))


def pipeline_of(tokenizer, max_length):
    from mmgpt.datasets.instruction import build_pipeline

    return build_pipeline(pipeline(tokenizer, max_length))


def test_the_memory_of_texts_is_limited(chat):
    small = Chat(chat.model, chat.pipeline, chat.generation, dict(cache_bytes=60_000))
    for each in questions():
        assert small.submit(each).text() == reference(chat, each)
        assert small.stats()["cache_bytes"] <= 60_000
    assert 0 < small.stats()["cache_bytes"]


def test_many_threads(chat):
    asked, expected = questions(), [reference(chat, each) for each in questions()]
    many, said = Chat(chat.model, chat.pipeline, chat.generation, dict(max_batch=4)), {}

    def work(number):
        said[number] = [many.submit(asked[(number + i) % 12]).text() for i in range(4)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(texts == [expected[(number + i) % 12] for i in range(4)] for number, texts in said.items())
    stats = many.stats()
    assert stats["requests"] == 32
    assert stats["running"] == stats["waiting"] == stats["failed"] == 0


def test_models_that_keep_more_than_keys_and_values(chat):
    alone = uncached(chat)
    alone.scheduler.prefiller.attention_only = False
    answers = [alone.submit(each) for each in questions()[:3]]
    assert len(list(answers[0])) > 1
    assert [answer.text() for answer in answers[1:]] == [reference(chat, each) for each in questions()[1:3]]
    drawn = [alone.submit(questions()[1], dict(do_sample=True), seed=seed).text() for seed in (1, 2, 1)]
    assert drawn[0] == drawn[2] != drawn[1]
    assert alone.stats()["cached_tokens"] == 0 < alone.stats()["prompt_tokens"]


def test_gradients_are_off(chat, monkeypatch):
    forward, seen = chat.flamingo.language.forward, []

    def look(*args, **kwargs):
        seen.append(torch.is_inference_mode_enabled())
        return forward(*args, **kwargs)

    monkeypatch.setattr(chat.flamingo.language, "forward", look)
    chat.submit(questions()[0]).text()
    assert seen
    assert all(seen)


def test_what_fails_between_steps_ends_all_answers_and_not_the_scheduler(chat, monkeypatch):
    many = uncached(chat)
    answers = [many.submit(each, LONG) for each in questions()[:2]]
    for answer in answers:
        next(iter(answer))

    def fail(*args):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(many.scheduler._batches[None], "prefix", fail)
    answers[0].cancel()
    for answer in answers:
        with pytest.raises(RuntimeError, match="out of memory"):
            answer.text()
    assert many.submit(questions()[0]).text() == reference(chat, questions()[0])
    many.close()


def test_questions_with_beams_come_in_while_others_begin(chat):
    many, said = uncached(chat, max_waiting=1000), []
    threads = [
        threading.Thread(
            target=lambda n=n: said.append(many.submit(questions()[n % 3], dict(num_beams=1 + n % 2)).text())
        )
        for n in range(24)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 24
    assert all(said)


def test_texts_of_other_scopes_are_not_used(chat):
    kept, asked = Chat(chat.model, chat.pipeline, chat.generation), questions()[1]
    known = []
    for scope in ("one", "other", "one", ""):
        answer = kept.submit(asked, scope=scope)
        assert answer.text() == reference(chat, asked)
        known.append(answer.cached_tokens)
    assert known == [0, 0, answer.prompt_tokens - 1, 0]


def test_equal_images_of_one_question_are_looked_at_and_kept_once(chat, monkeypatch):
    kept = Chat(chat.model, chat.pipeline, chat.generation)
    looks = Looks(kept, monkeypatch)
    asked = Conversation().with_question("are they alike?", [picture("red"), picture("blue"), picture("red")])
    assert kept.submit(asked).text() == reference(chat, asked)
    images = list(kept.scheduler.prefiller.cache._images.values())
    texts = list(kept.scheduler.prefiller.cache._prefixes.values())
    assert kept.stats()["cache_bytes"] == sum(each.nbytes for each in (*images, *texts))
    assert len(images) == 2
    assert all(image.latents.untyped_storage().nbytes() == image.latents.nbytes for image in images)
    assert looks.images == 2 + 3  # those of the reference


def test_an_answer_is_told_of_its_end_as_often_as_it_is_asked(chat):
    answer = chat.submit(questions()[0])
    assert answer.text()
    assert answer.text() == ""
    assert list(answer) == []
    told = chat.submit(questions()[0], listener=lambda event: None)
    with pytest.raises(ValueError, match="has a listener"):
        told.text()
    assert told.wait()


def test_a_stream_that_is_closed_before_it_begins_asks_nothing(chat):
    before = chat.stats()["requests"]
    with closing(chat.stream(chat.start(), "what?", generation=LONG)):
        pass
    assert chat.stats()["requests"] == before


def test_a_batch_that_ends_leaves_no_steps_of_its_turn_to_the_next(chat):
    scheduler = Scheduler(chat.model)
    scheduler._batches, scheduler._turn = {None: DecodingBatch(scheduler.language)}, 5
    scheduler._drop_batch("another")
    assert scheduler._turn == 5
    scheduler._drop_batch(None)
    assert scheduler._turn == 0
