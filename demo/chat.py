"""Chat with a tuned model in the terminal.

python demo/chat.py                                    the quickstart's model
python demo/chat.py CONFIG CHECKPOINT --image FILE     any other, with a first image
python demo/chat.py FOLDER                             what tools/model_converters/weights.py exported
python demo/chat.py CONFIG --adapter NAME=FOLDER ...   several tunings of one base; the first one answers first
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from PIL import Image

from mmgpt import apis
from mmgpt.cli import tool
from mmgpt.cli.adapters import add_adapter_option
from mmgpt.cli.model_options import add_model_options, chat_arguments, default_to_quickstart
from mmgpt.utils.imports import heavy_imports

HELP = """\
  /image FILE    send an image together with the next question
  /reset         forget the conversation
  /adapter NAME  answer with this adapter from now on; without a name: with none
  /help          this list
  /quit          leave (as does the end of the input)"""


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_options(parser)
    add_adapter_option(parser)
    parser.add_argument("--image", nargs="+", default=[], metavar="FILE", help="images for the first question")
    parser.add_argument("--max-new-tokens", type=int, help="longest answer, instead of the config's")
    args = parser.parse_args(arguments)
    default_to_quickstart(parser, args)
    return args


class Session:
    """One conversation in the terminal, and the images that wait for the next question.

    Args:
        chat: an `mmgpt.apis.Chat`.
        images: files for the first question.
    """

    def __init__(self, chat: "apis.Chat", images: list[str]):
        self.chat = chat
        self.adapter = next(iter(chat.adapters), None)
        self.conversation = chat.start()
        self.images: list[Image.Image] = []
        for image in images:
            self.attach(image)

    def run(self, command: str) -> None:
        """Run a line that begins with a slash, other than /quit."""
        command, _, rest = command.partition(" ")
        if command == "/help":
            print(HELP)
        elif command == "/reset":
            self.conversation, self.images = self.chat.start(), []
            print("a new conversation")
        elif command == "/image":
            self.attach(rest.strip())
        elif command == "/adapter" and rest.strip() in ("", *self.chat.adapters):
            self.adapter = rest.strip() or None
            print(f"adapter: {self.adapter or 'none'}")
        elif command == "/adapter":
            print(f"unknown adapter {rest.strip()}; adapters: {', '.join(self.chat.adapters) or 'none was loaded'}")
        else:
            print(f"there is no command {command}; /help lists the commands")

    def attach(self, file: str) -> None:
        """Attach an image to the next question; an unreadable file prints one line."""
        try:
            self.images.append(apis.read_image(Path(file).expanduser()))
        except (ValueError, OSError, RuntimeError) as error:  # expanduser raises RuntimeError for an unknown ~user.
            print(f"error: {error}")
        else:
            print(f"{file} goes with the next question")

    def answer(self, question: str) -> None:
        """Print the answer as it comes; Ctrl-C ends the answer, not the chat. Images wait until a question succeeds."""
        turns = len(self.conversation.turns)
        end = ""
        try:
            answer = self.chat.stream(self.conversation, question, self.images, adapter=self.adapter)
            with closing(answer) as pieces:
                for piece in pieces:
                    print(piece, end="", flush=True)
        except KeyboardInterrupt:
            end = " …"
        except (ValueError, RuntimeError) as error:  # A model raises RuntimeError when memory runs out.
            end = f"error: {error}"
        answered = len(self.conversation.turns) > turns
        if answered:
            self.images = []
        print(end or ("" if answered else "(no answer)"))


def lines(prompt: str) -> Iterator[str]:
    """Lines of input without surrounding white space; the prompt appears only at a terminal."""
    prompt = prompt if sys.stdin.isatty() else ""
    while True:
        try:
            yield input(prompt).strip()
        except (EOFError, KeyboardInterrupt):
            return


def main(arguments: list[str] | None = None) -> None:
    """Build the chat, then answer line by line."""
    args = parse_args(arguments)
    generation = {"max_new_tokens": args.max_new_tokens} if args.max_new_tokens else {}
    model = chat_arguments(args)
    with heavy_imports():
        from mmgpt.apis import Chat
    chat = Chat.from_config(**model, generation=generation)
    session = Session(chat, args.image)
    print("Ask a question; /help lists the commands.")
    for line in lines("> "):
        if line.partition(" ")[0] == "/quit":
            break
        if line.startswith("/"):
            session.run(line)
        elif line:
            session.answer(line)


if __name__ == "__main__":
    tool.run(main)
