"""The benchmarks' configs: each reads small data where it says, asks as it says, and gives right answers full marks."""

import json
import re
import shutil
from pathlib import Path

import pytest
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope

from mmgpt.cli import check_files, load_config
from mmgpt.cli.presets import benchmarks
from mmgpt.compat import names
from mmgpt.datasets.prompts import INSTRUCTION_START
from mmgpt.engine.evaluation_loop import score
from mmgpt.evaluation.readiness import build_metrics, check_questions, questions_of
from mmgpt.registry import DATASETS
from tests.helpers.benchmark_data import DATA, FILES, place_small, put_benchmark
from tests.helpers.published_data import draw

CONFIGS = Path(__file__).parents[2] / "configs"
# The first prompt of each in OpenFlamingo's style, and what our template asks.
CAPTION = ("<image>Output:", "Write a short caption for this photo.")
FIGURE = "Which figure of speech is used in this text? Options: chiasmus, apostrophe."
LABELS = "Options: entailment, neutral, contradiction."


def asked(question):
    return f"<image>Question:{question} Short answer:", question


PROMPTS = {
    "aokvqa": asked("What is in the motorcyclist's mouth? Options: toothpick, food, popsicle stick, cigarette."),
    "aokvqa_direct": asked("What is in the motorcyclist's mouth?"),
    "coco_caption": CAPTION,
    "flickr30k": CAPTION,
    "gqa": asked("Is it overcast?"),
    "language": ("Question:Name a river. Short answer:", "Name a river."),
    "nocaps": CAPTION,
    "ocr_vqa": asked("What is the title of this book?"),
    "okvqa": asked("What sport can you use this for?"),
    "pope": asked("Is there a snowboard in the image?"),
    "scienceqa": (
        f"Question:{FIGURE} Sing, O muse. Short answer:",
        f"{FIGURE}\n\n### Input:\nSing, O muse.",
    ),
    "snli_ve": asked(f"A man without a hat. How does this statement relate to the picture? {LABELS}"),
    "textvqa": asked("what is the brand of this camera?"),
    "vizwiz": asked("Ok. There is another picture I hope it is a better one."),
    "vqav2": asked("What color is the bus?"),
    "vqav2_test_dev": asked("Is the ball flying towards the batter?"),
}
# Some of the scores, where the most frequent answer is given to each question.
SCORES = {
    "aokvqa": {"choice/accuracy": 100, "choice/questions": 2},
    "aokvqa_direct": {"direct_answer/accuracy": 100, "direct_answer/questions": 1},
    "gqa": {"exact/accuracy": 100, "exact/structural/verify/accuracy": 100, "exact/semantic/global/questions": 1},
    "ocr_vqa": {"exact/accuracy": 100, "exact/questions": 1},
    "okvqa": {"vqa/accuracy": 100, "openflamingo/accuracy": 100, "vqa/question_type/four/questions": 1},
    "pope": {"yes_no/accuracy": 100, "yes_no/yes": 50, "yes_no/questions": 6, "yes_no/category/popular/F1": 100},
    "scienceqa": {
        "choice/accuracy": 100,
        "choice/subject/language science/questions": 1,
        "choice/grade/1-6/questions": 2,
        "choice/context/text/questions": 2,
        "choice/context/none/questions": 1,
    },
    "snli_ve": {"choice/accuracy": 100, "choice/questions": 2},
    "textvqa": {"textvqa/accuracy": 100, "openflamingo/accuracy": 100},
    "vizwiz": {"vizwiz/accuracy": 100, "openflamingo/accuracy": 100, "vizwiz/answer_type/unanswerable/questions": 1},
    # Eight annotators say "no" and two "yes", which still gives full marks.
    "vqav2": {"vqa/accuracy": 100, "openflamingo/accuracy": 100, "vqa/answer_type/yes/no/questions": 1},
    "vqav2_test_dev": {"leaderboard/answers": 2},
}


@pytest.fixture
def load(tmp_path, tiny_llama):
    """A function that gives an experiment's config for a benchmark, its data under a temporary folder."""

    def config(name, experiment="lora_joint", **options):
        small = dict(data_root=str(tmp_path / "data"), language_model=tiny_llama, max_length=4000)
        small["prepare_images.size"] = 16
        return load_config(CONFIGS / "mmgpt" / f"{experiment}.py", small | dict(benchmark=name) | options)

    return config


def build(dataset):
    with DefaultScope.overwrite_default_scope("mmgpt"):
        return DATASETS.build(dataset)


def prepare(cfg, name):
    put_benchmark(cfg.test_dataloader.dataset, name)
    check_files(dict(test_dataloader=cfg.test_dataloader, test_evaluator=cfg.test_evaluator))
    return build(cfg.test_dataloader.dataset)


def test_every_benchmark_is_tested():
    assert set(benchmarks()) == set(FILES) == set(PROMPTS)


@pytest.mark.parametrize("name", FILES)
def test_what_is_asked(load, name):
    openflamingo, ours = PROMPTS[name]
    data = prepare(load(name, style="openflamingo"), name)
    assert data[0]["meta"]["prompt"] == openflamingo
    data = build(load(name).test_dataloader.dataset)
    image = "### Image:\n<image>\n\n" if "<image>" in openflamingo else ""
    assert data[0]["meta"]["prompt"] == f"{INSTRUCTION_START}{image}### Instruction:\n{ours}\n\n### Response:\n"
    metas = [sample["meta"] for sample in data]
    assert len({(meta["dataset"], meta["id"]) for meta in metas}) == len(metas)
    assert all((sample["pixels"] is not None) == bool(sample["meta"]["images"]) for sample in data)


@pytest.mark.parametrize("name", FILES)
def test_answers_can_be_scored(load, name):
    """Nothing is refused before the first answer that would not be refused after the last."""
    if name in ("coco_caption", "flickr30k", "nocaps"):
        pytest.importorskip("pycocoevalcap")
    cfg = load(name)
    data = prepare(cfg, name)
    check_questions(build_metrics(cfg.test_evaluator), questions_of(data))
    metas = [sample["meta"] for sample in data]
    for question, meta in zip(questions_of(data), metas, strict=True):
        assert {key: value for key, value in question.items() if key != "candidates"}.items() <= meta.items()


@pytest.mark.parametrize("name", SCORES)
def test_right_answers_have_full_marks(load, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = load(name)
    rows = [sample["meta"] for sample in prepare(cfg, name)]
    # A-OKVQA's direct answers are scored by what its annotators wrote, not by the right choice.
    direct = name == "aokvqa_direct"
    rows = [row | {"prediction": row["answers"][0] if direct else row["answer"] or "yes"} for row in rows]
    assert SCORES[name].items() <= metrics(cfg, rows).items()


def metrics(cfg, rows):
    with DefaultScope.overwrite_default_scope("mmgpt"):
        evaluator = Evaluator(cfg.test_evaluator)
    return score(rows, evaluator.metrics, Path())


@pytest.mark.parametrize("name", ["coco_caption", "flickr30k", "nocaps"])
def test_captions_are_scored(load, name, monkeypatch):
    pytest.importorskip("pycocoevalcap")
    monkeypatch.setattr(shutil, "which", lambda name: None)  # Java takes seconds
    cfg = load(name)
    rows = [sample["meta"] for sample in prepare(cfg, name)]
    rows = [row | {"prediction": row["answers"][0]} for row in rows]
    scores = metrics(cfg, rows)
    assert scores["caption/plain_ROUGE-L"] == pytest.approx(100)
    assert scores["caption/questions"] == len(rows)
    if name == "nocaps":
        assert scores["caption/domain/out-domain/plain_BLEU-1"] == pytest.approx(100)


def test_the_leaderboards_file_is_written(load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = load("vqav2_test_dev")
    rows = [sample["meta"] | {"prediction": "yes"} for sample in prepare(cfg, "vqav2_test_dev")]
    metrics(cfg, rows)
    written = (tmp_path / cfg.test_evaluator.out_file).read_text()
    assert written == '[{"question_id": 1000, "answer": "yes"}, {"question_id": 1001, "answer": "yes"}]'


OPENFLAMINGO = dict(num_beams=3, end_token="<|endofchunk|>")


@pytest.mark.parametrize(
    "experiment", ["lora_joint", "published_v0", "lora_joint_openflamingo_9b_v2", "lora_joint_all"]
)
def test_a_style_fits_any_experiment(load, experiment):
    own = load("okvqa", experiment)
    assert own.test_cfg.cut_at == []
    assert own.question_template == "instruction"
    assert own.model.module.generation == own.generation
    assert own.generation.max_new_tokens == 128
    vqa, caption = ["Question", "Answer", "Short", ", "], ["Output"]
    for name, length, penalty, cut_at in (("okvqa", 5, 0.0, vqa), ("nocaps", 20, -2.0, caption)):
        cfg = load(name, experiment, style="openflamingo")
        said = dict(max_new_tokens=length, length_penalty=penalty, beam_scores="text")
        assert cfg.model.module.generation == OPENFLAMINGO | said
        assert cfg.test_cfg.cut_at == cut_at
        assert cfg.chat_pipeline == own.chat_pipeline
        assert cfg.train_dataloader == own.train_dataloader


@pytest.mark.parametrize("name", ["aokvqa", "scienceqa", "snli_ve", "pope"])
def test_choices_are_ranked_or_read_in_a_free_answer(load, name):
    own = "generation" if name == "pope" else "ranking"
    for answering in ("ranking", "generation"):
        data = prepare(load(name, answering=answering), name)
        counts = {len(sample["candidates"] or []) for sample in data}
        assert counts == ({len(sample["meta"]["choices"]) for sample in data} if answering == "ranking" else {0})
        same = build(load(name).test_dataloader.dataset)[0]
        assert (bool(same["candidates"]) == bool(data[0]["candidates"])) == (answering == own)
        assert same["meta"]["prompt"] == data[0]["meta"]["prompt"]


@pytest.fixture
def guide(tmp_path):
    """The Python blocks of the guide, as files beside the configs that they inherit."""
    text = (CONFIGS.parent / "docs" / "evaluation.md").read_text()
    paths = []
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL)):
        block = block.replace('"./', f'"{CONFIGS}/mmgpt/').replace('"../', f'"{CONFIGS}/')
        paths.append(tmp_path / f"guide_{number}.py")
        paths[-1].write_text(block)
    return paths


def test_in_context_examples_of_the_guide(load, guide):
    cfg = load("okvqa", experiment=guide[0].with_suffix(""), **{"example_steps.0.shots": 1})
    assert cfg.question_template == "openflamingo_vqa"
    place_small(cfg.okvqa, "okvqa_annotations.json", "okvqa_questions.json")
    [sample] = prepare(cfg, "okvqa")
    shown = "<image>Question:What is the hairstyle of the blond called? Short answer:pony tail<|endofchunk|>"
    assert sample["meta"]["prompt"] == shown + PROMPTS["okvqa"][0]
    assert len(sample["pixels"]) == 2


def test_a_benchmark_of_ones_own_as_the_guide_has_it(load, guide, tmp_path):
    birds = guide[1].rename(tmp_path / "birds.py")
    cfg = load(str(birds))
    check_birds(cfg)
    styled = load(str(birds), style="openflamingo")
    assert styled.question_template == "openflamingo_vqa"
    assert styled.generation.max_new_tokens == 5


EARLIER = """
eval_birds = dict(
    type="InstructionDataset",
    name="birds",
    parser=dict(type="vqa", image="{file}", tags=["season"]),
    seed="${seed}",
    data_root="${data_root}",
    ann_file="birds/test.json",
    data_prefix=dict(img="birds/images"),
    expect=dict(split="test"),
    pipeline=["${example_steps}", "${image_steps}", "${question_steps}"],
)
metric_birds = dict(type="BenchmarkScores", rule="exact", by=["season"])
task_birds = "vqa"
"""


def test_a_benchmark_as_an_earlier_release_has_it(load, tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(names, "print_log", lambda text, *_: warnings.append(text))
    path = tmp_path / "earlier.py"
    path.write_text(f"_base_ = '{CONFIGS}/mmgpt/lora_joint.py'\n{EARLIER}")
    cfg = load("birds", experiment=path.with_suffix(""))
    check_birds(cfg)
    assert "'eval_birds' is 'test_dataloader.dataset' now, 'metric_birds' is 'test_evaluator' now" in warnings[0]
    styled = load("birds", experiment=path.with_suffix(""), style="openflamingo")
    assert styled.question_template == "openflamingo_vqa"
    assert styled.test_cfg.cut_at[0] == "Question"


def test_changes_of_a_benchmark_as_an_earlier_release_has_them(load):
    cfg = load("gqa", **{"eval_gqa.sample": 3, "metric_gqa.by": []})
    assert cfg.test_dataloader.dataset.sample == 3
    assert cfg.test_evaluator.by == []
    free = load("aokvqa", answering_aokvqa="generation")
    assert free.test_dataloader.dataset == load("aokvqa", answering="generation").test_dataloader.dataset
    with pytest.raises(KeyError, match="no 'cut_at_vqa'; a style is a file of configs/benchmarks/styles now"):
        load("gqa", cut_at_vqa=["."])
    with pytest.raises(KeyError, match="no 'eval_okvqa'; a benchmark is a file of configs/benchmarks now"):
        load("gqa", **{"eval_okvqa.sample": 3})


def check_birds(cfg):
    record = dict(question="Which bird?", file="1.jpg", answer="a wren", season="winter", split="test")
    folder = Path(cfg.data_root) / "birds"
    draw(folder / "images" / "1.jpg")
    (folder / "test.json").write_text(json.dumps([record]))
    rows = [sample["meta"] | {"prediction": "A wren."} for sample in build(cfg.test_dataloader.dataset)]
    assert metrics(cfg, rows)["exact/season/winter/accuracy"] == 100


OTHER_SPLIT = {
    "aokvqa": ("aokvqa.json", "", "record 0, .*split is 'train', but 'val' is expected: is this the file of another"),
    "coco_caption": ("", "", "none of 2 records belongs to dataset 'coco_caption'"),
    "gqa": ("gqa_train_balanced_questions.json", "", r"imageId is '2354786', but 'n\\\\d\+' is expected"),
    "ocr_vqa": ("ocr_vqa_downloaded.json", "", "none of 1 records belongs to dataset 'ocr_vqa'"),
    "textvqa": ("TextVQA_0.5.1_train.json", "", "set_name is 'train', but 'val' is expected"),
    "vqav2": (
        "v2_mscoco_train2014_annotations.json",
        "v2_OpenEnded_mscoco_train2014_questions.json",
        "data_subtype is 'train2014', but 'val2014' is expected",
    ),
    "okvqa": ("okvqa_annotations.json", "okvqa_questions.json", "data_subtype is 'train2014', but 'val2014'"),
    "vqav2_test_dev": ("v2_OpenEnded_mscoco_val2014_questions.json", "", "data_subtype is 'val2014', but 'test.*2015'"),
    "vizwiz": ("", "", "image is 'VizWiz_train_00000000.jpg', but 'VizWiz_val_.*' is expected"),
    "pope": ("", "", "image is 'COCO_train2014_000000310196.jpg', but 'COCO_val2014_.*' is expected"),
    "scienceqa": ("", "", "none of 4 records belongs to dataset 'scienceqa'"),
}
# Changes that make another split's file of the right one, where no small file of another split exists.
CHANGES = {
    "coco_caption": ('"split": "test"', '"split": "val"'),
    "vizwiz": ("VizWiz_val", "VizWiz_train"),
    "pope": ("val2014", "train2014"),
    "scienceqa": ('"split": "test"', '"split": "val"'),
}


@pytest.mark.parametrize("name", OTHER_SPLIT)
def test_a_file_of_another_split_is_refused(load, name):
    cfg = load(name)
    put_benchmark(cfg.test_dataloader.dataset, name)
    annotations, questions, message = OTHER_SPLIT[name]
    part = cfg.test_dataloader.dataset.get("visual", [cfg.test_dataloader.dataset])[0]
    for place, source in ((part.ann_file, annotations), (part.data_prefix.get("questions"), questions)):
        path = Path(part.data_root) / (place or "")
        if source:
            path.write_text((DATA / source).read_text())
        elif place:
            path.write_text(path.read_text().replace(*CHANGES[name]))
    with pytest.raises(ValueError, match=message):
        build(part).full_init()


def test_a_benchmark_that_is_misspelt(load):
    with pytest.raises(
        KeyError, match="unknown benchmark 'vqa2'; did you mean 'vqav2'.*Choices: aokvqa, aokvqa_direct"
    ):
        load("vqa2")
    with pytest.raises(KeyError, match="unknown style 'flamingo'; did you mean 'openflamingo'.*instruction"):
        load("gqa", style="flamingo")
    with pytest.raises(ValueError, match="answering='ranking': the questions of benchmark 'gqa' have no choices"):
        load("gqa", answering="ranking")
    with pytest.raises(KeyError, match="unknown answering 'rank'; did you mean 'ranking'"):
        load("pope", answering="rank")


def test_a_config_changes_the_benchmark_that_it_names(load, tmp_path):
    path = tmp_path / "mine.py"
    own = "test_dataloader = dict(batch_size=4, dataset=dict(sample=2))\ntest_cfg = dict(cut_at=['.'])\n"
    path.write_text(f"_base_ = '{CONFIGS}/mmgpt/lora_joint.py'\nbenchmark = 'gqa'\n{own}")
    options = dict(language_model="", data_root="data")
    cfg = load_config(path, options)
    assert cfg.test_dataloader.dataset.name == "gqa"
    assert (cfg.test_dataloader.batch_size, cfg.test_dataloader.dataset.sample) == (4, 2)
    assert cfg.test_cfg.cut_at == ["."]
    # One that an option names instead has its own metrics and loop.
    other = load_config(path, options | dict(benchmark="okvqa"))
    assert (other.test_dataloader.dataset.name, other.test_dataloader.batch_size) == ("okvqa", 4)
    assert other.test_cfg.cut_at == []


def test_a_benchmark_replaces_the_test_data_of_an_experiment(load):
    own = load_config(CONFIGS / "mmgpt" / "tiny_lora_joint.py")
    cfg = load_config(CONFIGS / "mmgpt" / "tiny_lora_joint.py", dict(benchmark="okvqa"))
    assert cfg.test_dataloader.dataset.name == "okvqa"
    assert cfg.test_dataloader.batch_size == own.test_dataloader.batch_size == 128
    assert [metric.rule for metric in cfg.test_evaluator] == ["vqa", "openflamingo"]
    with pytest.raises(ValueError, match="style='openflamingo' needs a benchmark"):
        load_config(CONFIGS / "mmgpt" / "tiny_lora_joint.py", dict(style="openflamingo"))


def test_missing_files_come_with_their_source(load):
    with pytest.raises(FileNotFoundError, match="OK-VQA .okvqa.allenai.org/download.html") as error:
        check_files(load("okvqa"), skip=("model", "train_dataloader", "chat_pipeline"))
    assert "COCO's images of 2014" in str(error.value)
    assert "vizwiz" not in str(error.value)


def test_few_questions_of_a_benchmark(load):
    cfg = load("vqav2", **{"test_dataloader.dataset.sample": 1})
    assert len(prepare(cfg, "vqav2")) == 1
    assert cfg.test_dataloader.dataset.sample == 1
