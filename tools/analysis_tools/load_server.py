"""Many clients at once at a server of tools/serve.py: how fast it is, what it refuses, and whether its answers stay.

python tools/analysis_tools/load_server.py --images A.png B.png --questions "What is it?" "Which colour?"

Every question about every picture, and by itself, is asked once by a client alone, then by all clients in turn, every
second time as a stream. It ends with exit code 1 when an answer differs from the one that a client alone got, or when
there was an error other than 429 and 503. An API key is taken from MMGPT_API_KEY. Needs the package openai.
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

REFUSALS = (429, 503)
PAUSE = 0.1  # seconds before a client that was refused asks again
MEMORY = re.compile(r"^process_resident_memory_bytes (\S+)$", re.M)


@dataclass
class Counts:
    """What came back.

    Attributes:
        answers: how many.
        seconds: how long each took.
        first: how long the first text took, of streams.
        tokens: of all answers.
        errors: how many of each status, or kind where there is none.
        different: questions whose answer was another one, with both.
    """

    answers: int = 0
    seconds: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    tokens: int = 0
    errors: Counter = field(default_factory=Counter)
    different: list[tuple[str, str]] = field(default_factory=list)


class Load:
    """Clients of one server.

    Args:
        url: of the server.
        key: its API key.
        max_tokens: of an answer.
    """

    def __init__(self, url: str, key: str, max_tokens: int):
        self.url, self.key, self.max_tokens = url.rstrip("/"), key, max_tokens
        self.client = openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)
        self.counts = Counts()

    async def memory(self) -> float:
        """MiB that the server takes."""
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {self.key}"}) as client:
            response = (await client.get(f"{self.url}/metrics")).raise_for_status()
        return float(MEMORY.search(response.text)[1]) / 2**20

    async def ask(self, content: list[dict], stream: bool) -> str:
        """An answer, counted."""
        begun, first, text = time.perf_counter(), None, ""
        messages = [{"role": "user", "content": content}]
        settings = dict(model=self.model, messages=messages, temperature=0, max_tokens=self.max_tokens, stream=stream)
        if stream:
            options = {"include_usage": True}
            async for chunk in await self.client.chat.completions.create(**settings, stream_options=options):
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
        """One client: question after question."""
        for number, (content, expected) in enumerate(questions):
            if time.perf_counter() > until:
                return
            try:
                text = await self.ask(content, stream=bool(number % 2))
                if text != expected:
                    self.counts.different.append((expected, text))
            except openai.APIStatusError as error:
                self.counts.errors[error.status_code] += 1
                await asyncio.sleep(PAUSE)
            except openai.APIError as error:
                self.counts.errors[getattr(error, "code", None) or type(error).__name__] += 1

    async def run(self, contents: Sequence[list[dict]], clients: int, seconds: float) -> list[float]:
        """Ask alone, then all at once; memory before, at three moments and at the end."""
        self.model = (await self.client.models.list()).data[0].id
        questions = [(content, await self.ask(content, stream=False)) for content in contents]
        alone, self.counts = self.counts, Counts()
        print(f"one client: {alone.answers / sum(alone.seconds):.1f} answers a second, {spread(alone.seconds)}")
        memory, begun = [await self.memory()], time.perf_counter()
        tasks = [
            asyncio.create_task(self.keep_asking(cycle(questions[i % len(questions) :] + questions), begun + seconds))
            for i in range(clients)
        ]
        for quarter in range(1, 4):
            await asyncio.sleep(begun + seconds * quarter / 4 - time.perf_counter())
            memory.append(await self.memory())
        await asyncio.gather(*tasks)
        self.took = time.perf_counter() - begun
        return [*memory, await self.memory()]

    def report(self, memory: Sequence[float]) -> bool:
        """Print the figures; whether all is well."""
        counts = self.counts
        print(f"answers      {counts.answers}, {counts.answers / self.took:.1f} a second, {spread(counts.seconds)}")
        print(f"first text   {spread(counts.first)}")
        print(f"tokens       {counts.tokens / self.took:.0f} a second")
        print(f"errors       {dict(counts.errors) or 'none'}")
        print(f"memory       {' '.join(f'{value:.0f}' for value in memory)} MiB (before, at each quarter)")
        print(f"different    {len(counts.different)} answers from those to one client")
        for expected, text in counts.different[:5]:
            print(f"  {expected!r} alone, {text!r} here")
        return not counts.different and set(counts.errors) <= set(REFUSALS)


def spread(seconds: Sequence[float]) -> str:
    """Percentiles."""
    if len(seconds) < 2:
        return "too few to tell"
    cuts = quantiles(seconds, n=100, method="inclusive")
    return ", ".join(f"p{percent} {cuts[percent - 1]:.3f} s" for percent in (50, 95, 99))


def contents_of(images: Sequence[str], questions: Sequence[str]) -> list[list[dict]]:
    """Every question about every picture, and by itself."""
    encoded = [base64.b64encode(Path(image).read_bytes()).decode() for image in images]
    # The type is not looked at.
    pictures = [[{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}] for data in encoded]
    pictures.append([])
    return [[*picture, {"type": "text", "text": question}] for picture, question in product(pictures, questions)]


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the server")
    parser.add_argument("--images", nargs="+", default=[], metavar="FILE", help="pictures to ask about")
    parser.add_argument("--questions", nargs="+", default=["What is in the picture?"], metavar="TEXT")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--max-tokens", type=int, default=64, help="of an answer")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run, and say whether all is well."""
    args = parse_args(arguments)
    load = Load(args.url, os.environ.get("MMGPT_API_KEY", "none"), args.max_tokens)
    memory = asyncio.run(load.run(contents_of(args.images, args.questions), args.clients, args.seconds))
    return 0 if load.report(memory) else 1


if __name__ == "__main__":
    sys.exit(main())
