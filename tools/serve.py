"""Server of a tuned model with OpenAI's chat-completions interface (docs/chat.md).

python tools/serve.py                      the quickstart's model
python tools/serve.py CONFIG CHECKPOINT    any other
python tools/serve.py FOLDER               what tools/model_converters/weights.py exported
"""

import argparse
import os
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

from mmgpt.apis.arguments import add_model_arguments, find_model, load_chat
from mmgpt.cli import tool
from mmgpt.server.settings import Settings

KEY = "MMGPT_API_KEY"
LIMITS = {
    "max_body": "MiB of a request",
    "max_images": "images of a conversation",
    "max_pixels": "millions of pixels of all images of a conversation",
    "max_turns": "questions of a conversation",
    "max_characters": "characters of all texts of a conversation",
    "max_tokens": "tokens of the longest answer that a request can ask for",
    "body_timeout": "seconds in which the body of a request arrives",
    "time_limit": "seconds for an answer, waiting included",
    "shutdown_limit": "seconds that running answers get when the server is told to end",
}


def positive(text: str) -> int:
    """Positive integer of the command line."""
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"a whole number above 0 is needed, got {text!r}")
    return int(text)


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_arguments(parser)
    parser.add_argument("--name", help="name of the model in requests; default: that of the config or folder")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0 answers other machines, too")
    parser.add_argument("--port", type=int, default=8000, help="0 takes any free one")
    parser.add_argument("--api-key", default=os.environ.get(KEY), help=f"key that requests must have; {KEY} is safer")
    parser.add_argument("--allow-hosts", default="", metavar="HOST,...", help="hosts from which images may be fetched")
    parser.add_argument("--max-batch", type=positive, default=16, help="answers that are decoded at once")
    parser.add_argument("--max-waiting", type=positive, default=32, help="requests that wait besides")
    parser.add_argument("--cache", type=positive, default=1024, help="MiB of the cache of conversations and images")
    defaults = {field.name: field.default for field in fields(Settings)}
    for name, text in LIMITS.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=positive, default=defaults[name], help=f"{text}; default {defaults[name]}")
    args = parser.parse_args(arguments)
    find_model(parser, args)
    return args


def read_settings(args: argparse.Namespace) -> Settings:
    """Server settings of the command line."""
    return Settings(
        name=args.name or Path(args.config).resolve().name.removesuffix(".py"),
        api_key=args.api_key or None,
        allow_hosts=tuple(filter(None, args.allow_hosts.split(","))),
        max_requests=args.max_batch + args.max_waiting,
        **{name: getattr(args, name) for name in LIMITS},
    )


def main(arguments: list[str] | None = None) -> None:
    """Loads the model, then answers until the process is told to end."""
    args = parse_args(arguments)
    from mmgpt.server.run import make_server  # This takes seconds, for which an error in the options need not wait.

    settings = read_settings(args)
    # The server counts the requests that it admits, so that the scheduler never refuses one.
    admitted = args.max_batch + args.max_waiting
    engine = dict(max_batch=args.max_batch, max_waiting=admitted, cache_bytes=args.cache * 2**20)
    server = make_server(load_chat(args, engine=engine), settings, args.host, args.port)
    key = "needed" if settings.api_key else f"none; whoever reaches {args.host} can ask ({KEY} sets one)"
    print(f"model: {settings.name}, API key: {key}", flush=True)
    with suppress(KeyboardInterrupt):  # uvicorn raises it again after the shutdown.
        server.run()


if __name__ == "__main__":
    tool.run(main)
