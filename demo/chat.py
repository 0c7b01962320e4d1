"""Chat with a tuned model in the terminal.

python demo/chat.py                                    the quickstart's model
python demo/chat.py CONFIG CHECKPOINT --image FILE     any other, with a first picture
python demo/chat.py FOLDER                             what tools/model_converters/weights.py exported
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from mmgpt.apis.arguments import add_model_arguments, find_model, load_chat
from mmgpt.cli import tool

if TYPE_CHECKING:
    from mmgpt.apis import Chat

HELP = """\
  /image FILE    show a picture together with the next question
  /reset         forget the conversation
  /help          this list
  /quit          leave (as does the end of the input)"""


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_arguments(parser)
    parser.add_argument("--image", nargs="+", default=[], metavar="FILE", help="pictures for the first question")
    parser.add_argument("--max-new-tokens", type=int, help="longest answer, instead of the config's")
    args = parser.parse_args(arguments)
    find_model(parser, args)
    return args


class Session:
    """One conversation in the terminal: what was said, and the pictures waiting for the next question."""

    def __init__(self, chat: "Chat", images: list[str]):
        self.chat = chat
        self.conversation = chat.start()
        self.images: list[Image.Image] = []
        for image in images:
            self.show(image)

    def handle(self, line: str) -> bool:
        """Do what one line of input says; False when it asks to leave."""
        command, _, rest = line.partition(" ")
        if command == "/quit":
            return False
        if command == "/help":
            print(HELP)
        elif command == "/reset":
            self.conversation, self.images = self.chat.start(), []
            print("a new conversation")
        elif command == "/image":
            self.show(rest.strip())
        elif command.startswith("/"):
            print(f"there is no command {command}; /help lists them")
        elif line:
            self.answer(line)
        return True

    def show(self, file: str) -> None:
        """Keep a picture for the next question; a file that cannot be read is one line of complaint."""
        from mmgpt.apis import read_picture  # with the model's libraries, which --help does without

        try:
            self.images.append(read_picture(Path(file).expanduser()))
        except (ValueError, OSError, RuntimeError) as error:  # the last: there is no such user in ~user
            print(f"error: {error}")
        else:
            print(f"{file} goes with the next question")

    def answer(self, question: str) -> None:
        """Print the answer as it comes; Ctrl-C ends the answer, not the chat. Unanswered pictures go on waiting."""
        turns = len(self.conversation.turns)
        end = ""
        try:
            with closing(self.chat.stream(self.conversation, question, self.images)) as pieces:
                for piece in pieces:
                    print(piece, end="", flush=True)
        except KeyboardInterrupt:
            end = " …"
        except (ValueError, RuntimeError) as error:  # the last: the model's, out of memory for one
            end = f"error: {error}"
        answered = len(self.conversation.turns) > turns
        if answered:
            self.images = []
        print(end or ("" if answered else "(no answer)"))


def lines(prompt: str) -> Iterator[str]:
    """Lines of input without surrounding white space; a prompt is shown only to a person at a terminal."""
    shown = prompt if sys.stdin.isatty() else ""
    while True:
        try:
            yield input(shown).strip()
        except (EOFError, KeyboardInterrupt):
            return


def main(arguments: list[str] | None = None) -> None:
    """Build the chat, then answer line by line."""
    args = parse_args(arguments)
    generation = {"max_new_tokens": args.max_new_tokens} if args.max_new_tokens else {}
    chat = load_chat(args, generation)
    session = Session(chat, args.image)
    print("Ask a question; /help lists the commands.")
    for line in lines("> "):
        if not session.handle(line):
            break


if __name__ == "__main__":
    tool.run(main)
