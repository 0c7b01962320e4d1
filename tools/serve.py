"""Serve a tuned model with OpenAI's chat-completions interface (docs/chat.md).

python tools/serve.py                      the quickstart's model
python tools/serve.py CONFIG CHECKPOINT    any other
python tools/serve.py FOLDER               what tools/model_converters/weights.py exported
"""

import argparse
import os
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

from mmgpt import apis
from mmgpt.cli import tool
from mmgpt.cli.model_options import add_model_options, chat_arguments, default_to_quickstart
from mmgpt.server.settings import Settings

KEY = "MMGPT_API_KEY"
LIMITS = {
    "max_body": "MiB of a request",
    "max_images": "pictures of a conversation",
    "max_pixels": "millions of pixels of all pictures of a conversation",
    "max_turns": "questions of a conversation",
    "max_characters": "characters of all texts of a conversation",
    "max_tokens": "the longest answer that can be asked for",
    "body_timeout": "seconds in which the body of a request arrives",
    "time_limit": "seconds for an answer, waiting included",
    "shutdown_limit": "seconds that answers under way get when the server is told to end",
}


def positive(text: str) -> int:
    """An argument that counts something."""
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"a whole number above 0 is needed, got {text!r}")
    return int(text)


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_options(parser)
    parser.add_argument("--name", help="of the model, in requests; default: that of the config or folder")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0: to other machines, too")
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    parser.add_argument("--api-key", default=os.environ.get(KEY), help=f"that requests must bring; {KEY} is safer")
    parser.add_argument("--allow-hosts", default="", metavar="HOST,...", help="where pictures may be fetched from")
    parser.add_argument("--max-batch", type=positive, default=16, help="answers that grow at once")
    parser.add_argument("--max-waiting", type=positive, default=32, help="requests that wait beside them")
    parser.add_argument("--cache", type=positive, default=1024, help="MiB to remember conversations and pictures in")
    defaults = {field.name: field.default for field in fields(Settings)}
    for name, text in LIMITS.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=positive, default=defaults[name], help=f"{text}; default {defaults[name]}")
    args = parser.parse_args(arguments)
    default_to_quickstart(parser, args)
    return args


def read_settings(args: argparse.Namespace) -> Settings:
    """What the command line allows."""
    return Settings(
        name=args.name or Path(args.config).resolve().name.removesuffix(".py"),
        api_key=args.api_key or None,
        allow_hosts=tuple(filter(None, args.allow_hosts.split(","))),
        max_requests=args.max_batch + args.max_waiting,
        **{name: getattr(args, name) for name in LIMITS},
    )


def main(arguments: list[str] | None = None) -> None:
    """Load the model, then answer until the process is told to end."""
    args = parse_args(arguments)
    from mmgpt.server.run import make_server  # takes seconds: not before the command line is understood

    settings, model = read_settings(args), chat_arguments(args)
    # How many come in is the server's own count, so that the scheduler turns none of them away.
    places = args.max_batch + args.max_waiting
    scheduler = dict(max_batch=args.max_batch, max_waiting=places, cache_bytes=args.cache * 2**20)
    server = make_server(apis.Chat.from_config(**model, scheduler=scheduler), settings, args.host, args.port)
    key = "needed" if settings.api_key else f"none; whoever reaches {args.host} can ask ({KEY} sets one)"
    print(f"model: {settings.name}, API key: {key}", flush=True)
    with suppress(KeyboardInterrupt):  # uvicorn raises it again when all is over
        server.run()


if __name__ == "__main__":
    tool.run(main)
