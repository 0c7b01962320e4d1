"""Final report of the quickstart with real parts: scores, controls, text-only answers, a conversation and a sheet.

python projects/real_parts/report.py configs/mmgpt/real_lora.py work_dirs/real/latest.pth --out work_dirs/real
"""

import argparse
import json
import resource
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from text_questions import HELD_OUT

from mmgpt.apis import Chat
from mmgpt.cli import load_config, tool
from mmgpt.cli.options import add_cfg_options
from mmgpt.evaluation.metrics.answers import judge, normalize
from mmgpt.evaluation.predictions import Predictions
from mmgpt.evaluation.results import RESULT, write_json
from mmgpt.utils.json_file import read_json_object
from mmgpt.visualization import draw_sheet
from mmgpt.visualization.tables import percent_table, print_tables

YES_NO = "yes_no"  # name of the dataset of questions whose answer is yes or no
SHEET = 12  # images on the sheet


def read_rows(work_dir: Path) -> dict[str, list[dict]]:
    """Judged predictions of the newest evaluation with right images ('tuned') and with others ('other_image')."""
    rows = {}
    for file in sorted(work_dir.glob(f"evaluation/*/{RESULT}"), key=lambda file: file.stat().st_mtime):
        control = "ImageControl" in json.dumps(read_json_object(file)["settings"])
        predictions = Predictions(file.parent).read()
        rows["other_image" if control else "tuned"] = [judge(row) for _, row in sorted(predictions.items())]
    return rows


def blind_rows(train: Iterable[Mapping], rows: Sequence[dict]) -> list[dict]:
    """The rows with the most frequent answer to the same question in training instead of their predictions."""
    answers = defaultdict(Counter)
    for sample in train:
        for turn in sample["turns"]:
            question = turn["question"]
            text = question if isinstance(question, str) else question[-1]["text"]
            answers[text][turn["answer"]] += 1
    guesses = {question: counts.most_common(1)[0][0] for question, counts in answers.items()}
    return [judge({**row, "prediction": guesses.get(row["question"], "")}) for row in rows]


def scores(rows: Sequence[dict]) -> dict[str, float]:
    """Percentage of right answers: by dataset, of all rows, and of those that are not yes/no questions."""
    groups = defaultdict(list)
    for row in rows:
        for name in (row["dataset"], "all", *(["not_yes_no"] if row["dataset"] != YES_NO else [])):
            groups[name].append(row["correct"])
    return {name: 100 * sum(correct) / len(correct) for name, correct in groups.items()}


def text_only(chat: Chat) -> list[dict]:
    """Greedy answers to the held-out questions, tuned and before; `kept`: equal, or both right, or both wrong."""

    def ask() -> list[str]:
        conversations = [chat.start().with_question(question, []) for question in HELD_OUT]
        return chat.answer_all(conversations, {"max_new_tokens": 64, "num_beams": 1})

    tuned = ask()
    with chat.model.disabled():
        before = ask()
    rows = []
    for (question, words), answer, base in zip(HELD_OUT.items(), tuned, before, strict=True):
        right, base_right = (any(w.casefold() in text.casefold() for w in words) for text in (answer, base))
        kept = normalize(answer) == normalize(base) or right == base_right
        rows.append({"question": question, "tuned": answer, "before": base, "right": right, "kept": kept})
    return rows


def converse(chat: Chat, image: Path) -> list[dict]:
    """A conversation: two questions about an image, and a question of text alone."""
    conversation = chat.start()
    questions = (("Describe the picture.", [image]), ("What color is the shape?", []), ("What is a rainbow?", []))
    return [{"question": text, "answer": chat.ask(conversation, text, images)} for text, images in questions]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write report.json and the sheet, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", help="checkpoint of the training")
    parser.add_argument("--out", required=True, type=Path, help="work directory, with tools/test.py's evaluations")
    parser.add_argument("--seconds", type=Path, help="JSON of the seconds that earlier steps took, by name")
    add_cfg_options(parser)
    args = parser.parse_args(arguments)
    cfg = load_config(args.config, args.cfg_options)
    root, rows = Path(cfg.data_root), read_rows(args.out)
    lines = (root / "train.jsonl").read_text(encoding="utf-8").splitlines()
    rows["blind"] = blind_rows(map(json.loads, lines), rows["tuned"])
    columns = {name: scores(condition) for name, condition in rows.items()}
    # LoRA stays beside the weights, so that it can be switched off.
    chat = Chat.from_config(cfg, args.checkpoint, merge=False)
    answers = text_only(chat)
    shown = rows["tuned"][:: max(1, len(rows["tuned"]) // SHEET)][:SHEET]
    talk = converse(chat, root / shown[0]["images"][0])
    chat.close()
    report = {
        **columns,
        "counts": dict(Counter(row["dataset"] for row in rows["tuned"])),
        "text_kept": sum(row["kept"] for row in answers),
        "text_only": answers,
        "conversation": talk,
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "seconds": json.loads(args.seconds.read_text()) if args.seconds else {},
    }
    write_json(report, args.out / "report.json")
    sheet = draw_sheet([{**row, "image": root / row["images"][0]} for row in shown], args.out / "pictures.png")
    counts = {**report["counts"], "not_yes_no": sum(n for k, n in report["counts"].items() if k != YES_NO)}
    headings = {"tuned": "tuned", "other_image": "other image", "blind": "blind guesser"}
    table = percent_table(
        {heading: columns[name] for name, heading in headings.items()}, {**counts, "all": len(rows["tuned"])}
    )
    print_tables({"easy-VQA's test questions, % right": table})
    print(f"\nText only: {report['text_kept']} of {len(answers)} answers are as good as those of the base.\n")
    for turn in talk:
        print(f"> {turn['question']}\n{turn['answer']}")
    print(f"\nwritten: {args.out / 'report.json'}, {sheet}")


if __name__ == "__main__":
    tool.run(main)
