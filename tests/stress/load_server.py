"""Load test of a server of tools/serve.py with many clients: its speed, its refusals, and whether its answers change.

python tests/stress/load_server.py --images A.png B.png --questions "What is it?" "Which colour?"

Every question about every image, and every question without an image, as a first and as a second turn, is asked once by
a single client, then by all clients in turn, every second time as a stream. --hostile adds clients that send what
attackers and broken clients send (see hostile_clients.py), and --unfinished adds connections with bodies that never
end. The exit code is 1 when an answer differs from the one for the single client, when there was an error other than
429 and 503, or when a hostile request got a wrong status. An API key is taken from MMGPT_API_KEY. Needs the package
openai.
"""

import argparse
import asyncio
import base64
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, product
from pathlib import Path
from statistics import quantiles

import httpx
import openai
from hostile_clients import Hostile

REFUSALS = (429, 503)
PAUSE = 0.1  # seconds after which a client that was refused asks again
SETTLE = 40  # seconds that the server has to close the connections that hostile clients left open
FIGURES = {"memory": "process_resident_memory_bytes", "files": "process_open_fds", "threads": "mmgpt_threads"}


@dataclass
class Counts:
    """Counts of all answers and errors.

    Attributes:
        answers: number of answers.
        seconds: time of each answer.
        first: time to the first text of each stream.
        entry: time until the response of each stream began, before any text, refusals included.
        tokens: number of tokens of all answers.
        errors: number of errors by status, or by kind where there is no status.
        different: (expected, actual) answers that differ.
    """

    answers: int = 0
    seconds: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    entry: list[float] = field(default_factory=list)
    tokens: int = 0
    errors: Counter = field(default_factory=Counter)
    different: list[tuple[str, str]] = field(default_factory=list)


class Load:
    """Clients of one server.

    Args:
        url: address of the server.
        key: API key of the server.
        max_tokens: largest number of tokens of an answer.
    """

    def __init__(self, url: str, key: str, max_tokens: int):
        self.url, self.key, self.max_tokens = url.rstrip("/"), key, max_tokens
        self.client = openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)
        self.counts = Counts()

    async def figures(self) -> dict[str, float]:
        """Resources of the server: MiB of memory, open files, threads."""
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {self.key}"}, timeout=60) as client:
            text = (await client.get(f"{self.url}/metrics")).raise_for_status().text
        values = {key: float(re.search(rf"^{name} (\S+)$", text, re.M)[1]) for key, name in FIGURES.items()}
        return {**values, "memory": values["memory"] / 2**20}

    async def ask(self, messages: list[dict], stream: bool, since: float | None = None) -> str:
        """Ask for an answer and count it; `since` is the time of the first attempt, if earlier ones were refused."""
        begun, first, text = time.perf_counter(), None, ""
        settings = dict(model=self.model, messages=messages, temperature=0, max_tokens=self.max_tokens, stream=stream)
        if stream:
            options = {"include_usage": True}
            chunks = await self.client.chat.completions.create(**settings, stream_options=options)
            self.counts.entry.append(time.perf_counter() - (since or begun))
            async for chunk in chunks:
                piece = (chunk.choices[0].delta.content or "") if chunk.choices else ""
                first = first or (time.perf_counter() - begun if piece else None)
                text += piece
                usage = chunk.usage
        else:
            answer = await self.client.chat.completions.create(**settings)
            text, usage = answer.choices[0].message.content, answer.usage
        self.counts.answers += 1
        self.counts.tokens += usage.completion_tokens
        self.counts.seconds.append(time.perf_counter() - begun)
        self.counts.first += [first] if first else []
        return text

    async def keep_asking(self, questions: Iterator[tuple[list[dict], str]], until: float) -> None:
        """Client that asks question after question."""
        since = None
        for number, (messages, expected) in enumerate(questions):
            if time.perf_counter() > until:
                return
            since = since or time.perf_counter()
            try:
                text = await self.ask(messages, stream=bool(number % 2), since=since)
                since = None
                if text != expected:
                    self.counts.different.append((expected, text))
            except openai.APIStatusError as error:
                self.counts.errors[error.status_code] += 1
                await asyncio.sleep(PAUSE)
            except openai.APIError as error:
                self.counts.errors[getattr(error, "code", None) or type(error).__name__] += 1

    async def run(
        self, conversations: Sequence[list[dict]], clients: int, seconds: float, hostile: int = 0, unfinished: int = 0
    ) -> list[dict[str, float]]:
        """Ask alone, then all at once; the server's figures before, at three moments and when all is over."""
        self.model = (await self.client.models.list()).data[0].id
        questions = [(messages, await self.ask(messages, stream=False)) for messages in conversations]
        alone, self.counts = self.counts, Counts()
        print(f"one client: {alone.answers / sum(alone.seconds):.1f} answers a second, {spread(alone.seconds)}")
        await self.client.close()
        figures, begun = [await self.figures()], time.perf_counter()
        self.client = openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=self.key, max_retries=0)
        self.hostile = Hostile(self.url, self.key, self.model, conversations)
        tasks = [
            asyncio.create_task(self.keep_asking(cycle(questions[i % len(questions) :] + questions), begun + seconds))
            for i in range(clients)
        ]
        tasks += [asyncio.create_task(self.hostile.keep_on(i, begun + seconds)) for i in range(hostile)]
        tasks += [asyncio.create_task(self.hostile.never_end(begun + seconds)) for _ in range(unfinished)]
        # In a long run, the first is after a minute, when all that is kept has been filled.
        for moment in (min(60, seconds / 10), seconds / 2, seconds * 3 / 4):
            await asyncio.sleep(begun + moment - time.perf_counter())
            figures.append(await self.figures())
        await asyncio.gather(*tasks)
        self.took = time.perf_counter() - begun
        await self.client.close()
        while (last := await self.figures())["files"] > figures[0]["files"]:
            if time.perf_counter() > begun + self.took + SETTLE:
                break
            await asyncio.sleep(1)
        return [*figures, last]

    def report(self, figures: Sequence[dict[str, float]]) -> bool:
        """Print the figures; whether there was no wrong answer and no unexpected error."""
        counts, hostile = self.counts, self.hostile
        print(f"answers      {counts.answers}, {counts.answers / self.took:.1f} a second, {spread(counts.seconds)}")
        print(f"first text   {spread(counts.first)}")
        print(f"entry        {spread(counts.entry)}, at most {max(counts.entry, default=0):.3f} s")
        print(f"tokens       {counts.tokens / self.took:.0f} a second")
        print(f"errors       {dict(counts.errors) or 'none'}")
        moments = "(before, after a minute or a tenth, half, three quarters and the end)"
        for name, unit in (("memory", " MiB"), ("files", ""), ("threads", "")):
            print(f"{name:<12} {' '.join(f'{moment[name]:.0f}' for moment in figures)}{unit} {moments}")
        print(f"hostile      {dict(sorted(hostile.counts.items())) or 'none'}")
        for text in hostile.wrong[:5]:
            print(f"  wrong: {text}")
        print(f"different    {len(counts.different)} answers from those for a single client")
        for expected, text in counts.different[:5]:
            print(f"  {expected!r} for a single client, {text!r} here")
        return not counts.different and not hostile.wrong and set(counts.errors) <= set(REFUSALS)


def spread(seconds: Sequence[float]) -> str:
    """Percentiles of times, as text."""
    if len(seconds) < 2:
        return "too few answers for percentiles"
    cuts = quantiles(seconds, n=100, method="inclusive")
    return ", ".join(f"p{percent} {cuts[percent - 1]:.3f} s" for percent in (50, 95, 99))


def conversations_of(images: Sequence[str], questions: Sequence[str]) -> list[list[dict]]:
    """Conversations with every question, about every image and about none, as the first turn and as the second one."""
    encoded = [base64.b64encode(Path(image).read_bytes()).decode() for image in images]
    # The server ignores the type in the address.
    image_contents = [
        [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}] for data in encoded
    ]
    contents = [
        [*content, {"type": "text", "text": question}]
        for content, question in product([*image_contents, []], questions)
    ]
    single = [[{"role": "user", "content": content}] for content in contents]
    answer = {"role": "assistant", "content": "yes"}
    return single + [[*single[i - 1], answer, *messages] for i, messages in enumerate(single)]


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="address of the server")
    parser.add_argument("--images", nargs="+", default=[], metavar="FILE", help="images to ask about")
    parser.add_argument("--questions", nargs="+", default=["What is in the image?"], metavar="TEXT")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--hostile", type=int, default=0, help="number of hostile clients")
    parser.add_argument("--unfinished", type=int, default=0, help="number of connections whose bodies never end")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--max-tokens", type=int, default=64, help="largest number of tokens of an answer")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the test; the exit code."""
    args = parse_args(arguments)
    load = Load(args.url, os.environ.get("MMGPT_API_KEY", "none"), args.max_tokens)
    conversations = conversations_of(args.images, args.questions)
    figures = asyncio.run(load.run(conversations, args.clients, args.seconds, args.hostile, args.unfinished))
    return 0 if load.report(figures) else 1


if __name__ == "__main__":
    sys.exit(main())
