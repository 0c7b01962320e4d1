"""Command that reports on the model of `quickstart.py`: scores, a control, a blind guesser, texts, a conversation.

    python projects/real_parts/real_report.py projects/real_parts/configs/real_lora.py work_dirs/quickstart_real

It reads the evaluation in the work directory, asks the model the questions of `text_questions.HELD_OUT` and a
conversation, and writes report.json, report.txt (its tables) and pictures.png there.
"""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mmengine.config import Config
from prepare import package_folder, read_questions
from quickstart import CONFIG, REPORT, STEPS
from rich.console import Console
from text_answers import answers
from text_questions import HELD_OUT

from mmgpt.apis import Chat
from mmgpt.cli import load_config, tool
from mmgpt.evaluation.metrics.answers import normalize
from mmgpt.evaluation.results_reader import read_evaluation
from mmgpt.utils.atomic import atomic_write
from mmgpt.visualization import draw_sheet
from mmgpt.visualization.curves import find_scalars, read_scalars
from mmgpt.visualization.tables import percent_table

SHOWN = 4  # images of each kind of question on the sheet
QUESTIONS = ("What color is the shape?", "Is there a circle?", "Describe the picture.")
TEXT_QUESTION = "What is the capital of the Netherlands?"


def accuracies(rows: Iterable[Mapping]) -> dict[str, float]:
    """Percent of right answers of rows with `dataset` and `score`: by dataset, of all, and of those not yes/no."""
    scores = defaultdict(list)
    for row in rows:
        for name in ("all", row["dataset"], *(["not_yes_no"] if row["dataset"] != "yes_no" else [])):
            scores[name].append(row["score"])
    return {name: 100 * sum(values) / len(values) for name, values in scores.items()}


def guesses(questions: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The most frequent of the answers to each question."""
    counts = defaultdict(Counter)
    for question, answer in questions:
        counts[question][answer] += 1
    return {question: answers.most_common(1)[0][0] for question, answers in counts.items()}


def evaluations(out: Path) -> tuple[list[dict], list[dict]]:
    """The scored rows of the evaluation in a work directory, and those of its control with other images."""
    files = sorted((out / "evaluation").glob("*/result.json"), key=lambda path: path.stat().st_mtime)
    # The control comes second, and no other evaluation is in the work directory.
    shown, shuffled = (read_evaluation(file).rows for file in files[-2:])
    return shown, shuffled


def text_report(chat: Chat, language_model: str) -> list[dict]:
    """The held-out text questions with the answers of the language model as it was, and of the tuned model.

    `kept` says whether the tuned answer is the same or has one of the words of a right one, unless only the base's has.
    """
    before, rows = dict(answers(Path(language_model), list(HELD_OUT), ended=False)), []
    for question, words in HELD_OUT.items():
        answer = chat.ask(chat.start(), question, generation=dict(num_beams=1))
        right_before, right = (
            any(word.lower() in text.lower() for word in words) for text in (before[question], answer)
        )
        kept = normalize(answer) == normalize(before[question]) or right >= right_before
        rows.append({"question": question, "base": before[question], "tuned": answer, "kept": kept})
    return rows


def converse(chat: Chat, image: Path) -> list[dict]:
    """A conversation: questions about an image, then one that is not about it."""
    conversation, turns = chat.start(), []
    for number, question in enumerate((*QUESTIONS, TEXT_QUESTION)):
        answer = chat.ask(conversation, question, [image] if number == 0 else [])
        turns.append({"question": question, "answer": answer})
    return turns


def make_report(cfg: Config, out: Path) -> tuple[dict, list[dict]]:
    """The content of report.json, and rows for the sheet."""
    rows, shuffled = evaluations(out)
    train = read_questions(package_folder("easy_vqa") / "data" / "train")
    blind = guesses(pair for pairs in train.values() for pair in pairs)
    guessed = [{**row, "score": normalize(blind.get(row["question"], "")) == normalize(row["answer"])} for row in rows]
    chat = Chat.from_config(cfg, out / "latest.pth")
    image = Path(cfg.data_root) / rows[0]["images"][0]
    texts, steps = text_report(chat, cfg.language_model), json.loads((out / STEPS).read_text())
    speed = [value for _, value in read_scalars(find_scalars(out))["tokens_per_s"]]
    report = {
        "questions": dict(Counter(row["dataset"] for row in rows)) | {"all": len(rows)},
        "tuned": accuracies(rows),
        "other_image": accuracies(shuffled),
        "blind_guesser": accuracies(guessed),
        "text_kept": {"kept": sum(row["kept"] for row in texts), "of": len(texts), "answers": texts},
        "conversation": {"image": str(image), "turns": converse(chat, image)},
        "training_tokens_per_second": round(sorted(speed)[len(speed) // 2], 1),
        "steps": steps,
    }
    sheet = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        of_kind = [row for row in rows if row["dataset"] == dataset]
        sheet += of_kind[:: -(-len(of_kind) // SHOWN)]  # Neighbors are about the same image.
    folder = Path(cfg.data_root)
    return report, [row | {"image": folder / row["images"][0], "correct": row["score"] > 0} for row in sheet]


def write_text(report: Mapping, out: Path) -> None:
    """The report as text: tables, the conversation, and how to go on."""
    counts = report["questions"] | {"not_yes_no": report["questions"]["all"] - report["questions"]["yes_no"]}
    columns = {name.replace("_", " "): report[name] for name in ("tuned", "other_image", "blind_guesser")}
    texts, talk, latest = report["text_kept"], report["conversation"], out / "latest.pth"
    with (out / "report.txt").open("w", encoding="utf-8") as file:
        console = Console(file=file, width=100, highlight=False, markup=False)
        console.print("Questions about images nobody trained on, % right", percent_table(columns, counts), sep="\n")
        console.print(f"\nText alone: {texts['kept']} of {texts['of']} questions answered as before, or as well")
        console.print(f"\nA conversation about {talk['image']}:")
        for turn in talk["turns"]:
            console.print(f"    > {turn['question']}\n      {turn['answer']}")
        console.print(f"\nWritten: {out / REPORT}, {out / 'pictures.png'}\n\nTalk to it, serve it, take it along:")
        for command in (
            f"demo/chat.py {CONFIG} {latest} --image {talk['image']}",
            f"demo/gradio_demo.py {CONFIG} {latest}",
            f"tools/serve.py {CONFIG} {latest}",
            f"tools/model_converters/weights.py export {CONFIG} {latest} {out}/exported",
            f"tools/model_converters/weights.py merge {CONFIG} {latest} {out}/merged",
            f"tools/model_converters/weights.py export {CONFIG} {latest} {out}/transformers --format transformers",
        ):
            console.print(f"    python {command}", soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write report and sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file")
    parser.add_argument("out", type=Path, help="work directory of its training and evaluation")
    args = parser.parse_args(arguments)
    report, sheet = make_report(load_config(args.config), args.out)
    draw_sheet(sheet, args.out / "pictures.png")
    write_text(report, args.out)
    with atomic_write(args.out / REPORT) as temporary:  # the last file: with it the run is complete
        temporary.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    tool.run(main)
