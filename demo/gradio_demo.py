"""Chat with a tuned model on a web page.

python demo/gradio_demo.py                       the quickstart's model
python demo/gradio_demo.py CONFIG CHECKPOINT     any other
python demo/gradio_demo.py FOLDER                what tools/model_converters/weights.py exported
"""

import argparse
import signal
import threading
from pathlib import Path

from mmgpt import apis
from mmgpt.cli import tool
from mmgpt.cli.model_options import add_model_options, chat_arguments, default_to_quickstart
from mmgpt.utils.imports import heavy_imports

EXAMPLES = Path(__file__).parent / "examples/examples.json"


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_options(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0: to other machines, too")
    parser.add_argument("--port", type=int, help="by default the first free one from 7860")
    args = parser.parse_args(arguments)
    default_to_quickstart(parser, args)
    return args


def main(arguments: list[str] | None = None) -> None:
    """Build the chat, then serve its page until Ctrl-C. ValueError where Gradio is not installed."""
    args = parse_args(arguments)
    try:  # Gradio takes seconds to import, so that --help comes first.
        with heavy_imports():
            from mmgpt.webpage.chat_page import ChatPage
            from mmgpt.webpage.launch import private_folder, serving
            from mmgpt.webpage.rendering import read_examples
    except ModuleNotFoundError as error:
        raise ValueError(f"the page needs {error.name}: pip install -r requirements/demo.txt") from error

    chat = apis.Chat.from_config(**chat_arguments(args))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the folder of uploads is deleted in any case
    with private_folder() as folder:
        page = ChatPage(chat, f"mmgpt · {Path(args.config).stem}", read_examples(EXAMPLES))
        with serving(page, folder, args.host, args.port) as address:
            print(f"The page is at {address} (Ctrl-C ends it)", flush=True)
            try:
                threading.Event().wait()
            except KeyboardInterrupt:
                print("closing")
        chat.close()


if __name__ == "__main__":
    tool.run(main)
