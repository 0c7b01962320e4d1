"""Command that lets a language model answer the questions of `text_questions`, and writes them as training samples.

    python projects/real_parts/text_answers.py checkpoints/real/language data/real/text.jsonl

The answers are greedy. Those that do not end within 64 tokens are left out.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from text_questions import text_questions
from transformers import AutoModelForCausalLM, AutoTokenizer

from mmgpt.cli import tool
from mmgpt.utils.atomic import atomic_write
from mmgpt.utils.progress_bar import progress_bar

MAX_TOKENS = 64
BATCH = 32


@torch.no_grad()
def answers(path: Path, questions: Sequence[str], ended: bool = True) -> Iterator[tuple[str, str]]:
    """Pairs of a question and the answer of the language model in a folder, in an order of its own.

    Args:
        ended: whether answers that do not end within MAX_TOKENS are left out.
    """
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    with progress_bar("questions", total=len(questions)) as bar:
        ordered = sorted(questions, key=len)
        for start in range(0, len(ordered), BATCH):
            batch = ordered[start : start + BATCH]
            messages = [[{"role": "user", "content": question}] for question in batch]
            inputs = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
            )
            out = model.generate(**inputs, do_sample=False, max_new_tokens=MAX_TOKENS)
            for question, ids in zip(batch, out[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
                if not ended or tokenizer.eos_token_id in ids:
                    yield question, tokenizer.decode(ids, skip_special_tokens=True).strip()
            bar.update(len(batch))


def main(arguments: Sequence[str] | None = None) -> None:
    """Answer the questions and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("language_model", type=Path, help="Hugging Face folder with a chat template")
    parser.add_argument("out", type=Path, help="JSON lines to write")
    args = parser.parse_args(arguments)
    questions = text_questions()
    found = dict(answers(args.language_model, questions))
    with atomic_write(args.out) as temporary, temporary.open("w", encoding="utf-8") as file:
        for number, question in enumerate(q for q in questions if q in found):
            sample = {"id": f"text_{number:04}", "turns": [{"question": question, "answer": found[question]}]}
            file.write(json.dumps(sample, ensure_ascii=False) + "\n")
    print(f"{args.out}: {len(found)} of {len(questions)} answers ended within {MAX_TOKENS} tokens")


if __name__ == "__main__":
    tool.run(main)
