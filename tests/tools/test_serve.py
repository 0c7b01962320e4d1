"""tools/serve.py as a process of its own, with a real tiny model, through the official client."""

import re
import runpy
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import openai
import pytest

from mmgpt.cli.model_options import chat_arguments
from tests.helpers import scripts
from tests.helpers.scripts import ROOT, run_script, started_script
from tests.server.conftest import Served, data_uri, image_bytes, image_content, text_content, wait_until

TOOL = runpy.run_path(str(ROOT / "tools/serve.py"))
LOAD = ROOT / "tests/stress/load_server.py"
ENVIRONMENT = {**scripts.ENVIRONMENT, "MMGPT_API_KEY": "sesame"}


class Process(Served):
    """A server in a process: its address, and clients of it."""

    def __init__(self, process, url):
        self.process, self.url = process, url

    def client(self, **arguments):
        """With the key."""
        return super().client(**{"api_key": "sesame", **arguments})

    def get(self, path):
        """With the key."""
        return super().get(path, headers={"Authorization": "Bearer sesame"})


@contextmanager
def process(log, *arguments):
    """A server within a `with` block; its output goes to a file."""
    log.touch()
    command = [ROOT / "tools/serve.py", *arguments, "--port", "0"]
    with started_script(*command, output=log, environment=ENVIRONMENT) as child:
        address = re.compile(r"running on (http://\S+)")
        wait_until(lambda: address.search(log.read_text()) or not child.is_alive(), 200)
        yield Process(child, address.search(log.read_text())[1])


@pytest.fixture(scope="module")
def served(tmp_path_factory, chat_config, chat_checkpoint):  # noqa: F811
    """The server that most tests share."""
    log = tmp_path_factory.mktemp("serve") / "log.txt"
    with process(log, chat_config, chat_checkpoint, "--name", "tiny", "--max-tokens", "200") as served:
        yield served


def questions():
    """Conversations that differ in images, positions of images, texts and turns."""
    images = [image_content(data_uri(image_bytes(colour, (40, 30)))) for colour in ("red", "blue", "green")]
    for number, image in enumerate(images):
        yield [dict(role="user", content=[image, text_content("what colour is it?")])]
        yield [dict(role="user", content=[text_content("is"), image, text_content("or"), images[0], text_content("?")])]
        yield [dict(role="user", content=f"what is {number}? <image></s> ünï 你好")]
        yield [
            dict(role="user", content=[image, text_content("one?")]),
            dict(role="assistant", content="yes"),
            dict(role="user", content=[images[number - 1], text_content("two?")]),
        ]


def ask(served, messages, stream=False, **arguments):
    arguments = {"temperature": 0, "max_tokens": 12, **arguments}
    answer = served.ask(messages=messages, stream=stream, **arguments)
    if not stream:
        return answer.choices[0].message.content
    return "".join(chunk.choices[0].delta.content or "" for chunk in answer)


def test_a_vision_chat(served):
    messages = next(questions())
    first = served.ask(messages=messages, temperature=0, max_tokens=5)
    assert first.choices[0].message.content
    assert first.choices[0].finish_reason == "length"
    assert first.usage.completion_tokens == 5
    assert first.usage.prompt_tokens > 20
    messages = [*messages, first.choices[0].message.model_dump(), dict(role="user", content="and now?")]
    second = served.ask(messages=messages, temperature=0, max_tokens=5)
    assert second.usage.prompt_tokens_details.cached_tokens >= first.usage.prompt_tokens - 1


def test_a_stream_is_the_answer(served):
    for messages in questions():
        assert ask(served, messages, True) == ask(served, messages) != ""


def test_concurrent_requests_get_the_same_answers_as_single_ones(served):
    conversations = list(questions())
    alone = [ask(served, messages) for messages in conversations]
    assert len(set(alone)) > len(conversations) / 2
    with ThreadPoolExecutor(32) as pool:
        jobs = [(i % len(conversations), bool(i % 3)) for i in range(48)]
        texts = list(pool.map(lambda job: ask(served, conversations[job[0]], job[1]), jobs))
    assert texts == [alone[number] for number, _ in jobs]
    assert served.metric("mmgpt_running") == served.metric("mmgpt_waiting") == served.metric("mmgpt_failed_total") == 0


def test_settings_reach_the_model(served):
    messages = next(questions())
    drawn = [ask(served, messages, temperature=1.5, seed=seed) for seed in (1, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1
    whole = ask(served, messages)
    stop = whole[len(whole) // 2]
    assert ask(served, messages, stop=[stop]) == whole[: whole.index(stop)].strip()


def test_log_probabilities(served):
    choice = served.ask("what?", temperature=0, max_tokens=4, logprobs=True, top_logprobs=3).choices[0]
    for token in choice.logprobs.content:
        likeliest = [top.logprob for top in token.top_logprobs]
        assert len(likeliest) == 3
        assert likeliest == sorted(likeliest, reverse=True)
        assert max(likeliest) < 0
        assert token.logprob in likeliest


def test_closing_a_stream_stops_the_model(served):
    tokens, cancelled = served.metric("mmgpt_completion_tokens_total"), served.metric("mmgpt_cancelled_total")
    stream = served.ask("go on", max_tokens=200, stream=True, logprobs=True)
    for _ in range(3):
        next(stream)
    stream.close()
    wait_until(lambda: served.metric("mmgpt_cancelled_total") == cancelled + 1)
    wait_until(lambda: served.metric("mmgpt_running") == 0)
    assert served.metric("mmgpt_completion_tokens_total") < tokens + 200


def test_what_the_model_cannot_read_is_refused(served):
    with pytest.raises(openai.BadRequestError, match="tokens"):
        served.ask("word " * 1000)
    with pytest.raises(openai.AuthenticationError):
        served.client(api_key="open").models.list()


def test_the_load_tool(served, tmp_path):
    (tmp_path / "a.png").write_bytes(image_bytes())
    arguments = ["--url", served.url, "--images", tmp_path / "a.png", "--questions", "what?", "who?", "--clients", "8"]
    done = run_script(LOAD, *arguments, "--seconds", "1", "--max-tokens", "5", environment=ENVIRONMENT)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = dict(line.split(maxsplit=1) for line in done.stdout.splitlines()[1:])
    assert int(figures["answers"].split(",")[0]) >= 8
    assert figures["errors"] == "none"
    assert figures["different"].startswith("0 ")
    assert len(figures["memory"].split(" MiB")[0].split()) == 5


def test_the_load_tool_with_hostile_clients(served, tmp_path):
    (tmp_path / "a.png").write_bytes(image_bytes())
    arguments = ["--url", served.url, "--images", tmp_path / "a.png", "--clients", "2", "--hostile", "4"]
    arguments += ["--unfinished", "5", "--seconds", "4", "--max-tokens", "5"]
    done = run_script(LOAD, *arguments, environment=ENVIRONMENT)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = dict(line.split(maxsplit=1) for line in done.stdout.splitlines()[1:])
    assert "'never_end': 5" in figures["hostile"]
    assert "wrong" not in figures
    files = [int(value) for value in figures["files"].split(" (")[0].split()]
    assert max(files[1:-1]) >= files[0] + 5
    assert files[-1] <= files[0]


def test_sigterm_lets_an_answer_end(tmp_path, chat_config, chat_checkpoint):  # noqa: F811
    log = tmp_path / "log.txt"
    with process(log, chat_config, chat_checkpoint) as served:
        stream = served.client().chat.completions.create(
            model="tiny", messages=[dict(role="user", content="go on")], max_tokens=60, stream=True
        )
        next(stream)
        served.process.terminate()
        assert [chunk.choices[0].finish_reason for chunk in stream][-1] in ("stop", "length")
        served.process.join(60)
        assert served.process.exitcode is not None
        with pytest.raises(httpx.ConnectError):
            served.get("/health")
    assert "Traceback" not in log.read_text()
    assert "Finished server process" in log.read_text()


def test_the_command_line():
    args = TOOL["parse_args"](["folder/model-v1.5", "--allow-hosts", "a.example,b.example:81", "--max-waiting", "4"])
    settings = TOOL["read_settings"](args)
    assert (settings.name, settings.allow_hosts, settings.max_requests) == (
        "model-v1.5",
        ("a.example", "b.example:81"),
        20,
    )
    args = TOOL["parse_args"](["configs/a.py", "--name", "mine", "--max-body", "2", "--time-limit", "9"])
    settings = TOOL["read_settings"](args)
    assert (settings.name, settings.body_bytes, settings.time_limit) == ("mine", 2 * 2**20, 9)


def test_model_options_are_arguments_of_the_chat():
    options = ["--precision", "bfloat16", "--device", "cpu", "--cfg-options", "a=3"]
    config = str(ROOT / "configs/mmgpt/tiny_lora_joint.py")
    arguments = chat_arguments(TOOL["parse_args"]([config, "b.pth", *options]))
    model = dict(config=config, checkpoint="b.pth", precision="bfloat16", device="cpu", options={"a": 3}, trust=False)
    assert arguments == {**model, "adapters": {}}


@pytest.mark.parametrize("option", ["--max-body=0", "--max-images=-1", "--max-turns=many", "--time-limit=nan"])
def test_limits_are_numbers(option, capsys):
    with pytest.raises(SystemExit):
        TOOL["parse_args"](["a.py", option])
    assert "a whole number above 0" in capsys.readouterr().err
