"""Server of a tuned model with OpenAI's chat-completions interface (docs/chat.md).

python tools/serve.py                      the quickstart's model
python tools/serve.py CONFIG CHECKPOINT    any other
python tools/serve.py FOLDER               what tools/model_converters/weights.py exported
python tools/serve.py CONFIG --adapter a=FOLDER --adapter b=FOLDER     several tunings of one base
"""

import argparse
import os
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

from mmgpt.cli import tool
from mmgpt.cli.adapters import add_adapter_option
from mmgpt.cli.model_options import add_model_options, chat_arguments, default_to_quickstart
from mmgpt.server.settings import Settings
from mmgpt.utils.imports import heavy_imports

KEY = "MMGPT_API_KEY"
LIMITS = {
    "max_body": "MiB of a request",
    "max_images": "images of a conversation",
    "max_pixels": "millions of pixels of all images of a conversation",
    "max_turns": "questions of a conversation",
    "max_characters": "characters of all texts of a conversation",
    "max_tokens": "largest max_tokens of a request",
    "body_timeout": "seconds in which the body of a request has to arrive",
    "time_limit": "seconds for an answer, waiting included",
    "shutdown_limit": "seconds for running answers when the server shuts down",
}


def positive(text: str) -> int:
    """argparse type of a whole number above 0."""
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"a whole number above 0 is needed, got {text!r}")
    return int(text)


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_options(parser)
    add_adapter_option(parser)
    parser.add_argument("--name", help="of the model, in requests; default: that of the config or folder")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0: to other machines, too")
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    parser.add_argument("--api-key", default=os.environ.get(KEY), help=f"of requests; the variable {KEY} is safer")
    parser.add_argument("--allow-hosts", default="", metavar="HOST,...", help="hosts to download images from")
    parser.add_argument("--max-batch", type=positive, default=16, help="answers that are generated at once")
    parser.add_argument("--max-waiting", type=positive, default=32, help="requests that wait for these")
    parser.add_argument("--cache", type=positive, default=1024, help="MiB for cached prefixes and images")
    parser.add_argument(
        "--static-cache",
        action="store_true",
        help="tensors of fixed shapes for the answers, so that a GPU replays each token's step as a CUDA graph",
    )
    defaults = {field.name: field.default for field in fields(Settings)}
    for name, text in LIMITS.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=positive, default=defaults[name], help=f"{text}; default {defaults[name]}")
    args = parser.parse_args(arguments)
    default_to_quickstart(parser, args)
    return args


def read_settings(args: argparse.Namespace) -> Settings:
    """Settings of the server from its options."""
    return Settings(
        name=args.name or Path(args.config).resolve().name.removesuffix(".py"),
        api_key=args.api_key or None,
        allow_hosts=tuple(filter(None, args.allow_hosts.split(","))),
        max_requests=args.max_batch + args.max_waiting,
        **{name: getattr(args, name) for name in LIMITS},
    )


def main(arguments: list[str] | None = None) -> None:
    """Load the model, then serve it until SIGTERM or Ctrl-C."""
    args = parse_args(arguments)
    with heavy_imports():  # They take seconds, which --help does not need.
        from mmgpt.apis import Chat
        from mmgpt.server.run import make_server

    settings, model = read_settings(args), chat_arguments(args)
    # The server limits the number of requests itself: the scheduler must have room for all that it admits.
    scheduler = dict(max_batch=args.max_batch, max_waiting=settings.max_requests, cache_bytes=args.cache * 2**20)
    scheduler["static_cache"] = args.static_cache
    chat = Chat.from_config(**model, scheduler=scheduler)
    server = make_server(chat, settings, args.host, args.port)
    key = "needed" if settings.api_key else f"none; whoever reaches {args.host} can ask ({KEY} sets one)"
    names = "".join(f", {settings.name}:{name}" for name in chat.adapters)
    without = " (without LoRA)" * bool(names)
    print(f"model: {settings.name}{without}{names}, API key: {key}", flush=True)
    with suppress(KeyboardInterrupt):  # uvicorn raises it again after the shutdown.
        server.run()


if __name__ == "__main__":
    tool.run(main)
