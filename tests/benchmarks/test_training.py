"""What the rows of a training step compute: the same samples, the same trained weights, nothing left behind."""

import pytest
import torch
from mmengine.config import Config
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import training
from benchmarks.samples import DrawnSamples, batches, words_of
from benchmarks.training import (
    COMPILED,
    ENCODER,
    GATED,
    GROUPED,
    LANGUAGE,
    LANGUAGE_MIXED,
    LANGUAGE_PACKED,
    MIXED,
    PACKED,
    RESAMPLER,
    VISUAL,
    Row,
    checkpointing,
    peers,
)
from mmgpt.apis import build_model
from mmgpt.datasets.instruction import SOURCES
from mmgpt.models import flamingo_of
from tests.helpers.tolerances import TERMS, rounding

JOINT = (MIXED, GROUPED, PACKED, ENCODER, RESAMPLER, GATED, LANGUAGE_MIXED, LANGUAGE_PACKED, peers(MIXED))


@pytest.fixture(scope="module")
def drawn(small_model, small_cfg):
    words = words_of(small_model, small_cfg.prepare_images.size)
    return [DrawnSamples(source, 4, words, shrink=0.125) for source in SOURCES]


@pytest.fixture(scope="module")
def rows(small_model, small_cfg, drawn):
    return training.rows(small_model, small_cfg, drawn, 2, 64)


@pytest.fixture
def stance():
    yield
    torch.compiler.set_stance("default")


def test_variants_of_the_joint_step_have_the_same_supervised_tokens(rows):
    assert len({rows[name].supervised for name in JOINT}) == 1
    singles = rows[VISUAL].supervised + rows[LANGUAGE].supervised
    assert singles == rows[MIXED].supervised > rows[VISUAL].supervised > 0
    assert rows[peers(VISUAL)].supervised == rows[VISUAL].supervised
    assert {f"{name}, checkpointing" for name in (VISUAL, LANGUAGE, MIXED, GROUPED, PACKED)} < rows.keys()


def test_every_row_runs_and_leaves_no_gradient(rows):
    for name, row in rows.items():
        assert row() > 0, name
        assert all(p.grad is None for p in row.model.parameters()), name
        assert row.model.training, name


def test_different_numbers_of_supervised_tokens_are_refused(small_model, small_cfg, drawn, monkeypatch):
    def fewer(*args, row_length=None, **how):
        prepared = batches(*args, row_length=row_length, **how)
        return prepared[:1] if row_length else prepared

    monkeypatch.setattr(training, "batches", fewer)
    with pytest.raises(ValueError, match="different numbers of supervised tokens.*packed"):
        training.rows(small_model, small_cfg, drawn, 2, 64)


def trained(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_only_trainable_parameters_get_gradients(rows, small_model):
    for name in (MIXED, LANGUAGE_MIXED, LANGUAGE_PACKED, peers(MIXED)):
        row = rows[name]
        row.work(row.inputs[0])
        got = {key for key, p in row.model.named_parameters() if p.grad is not None}
        assert got == {key for key, p in row.model.named_parameters() if p.requires_grad}, name
        row.model.zero_grad()
    language = flamingo_of(small_model).language.model
    gated = sum(p.numel() for key, p in language.named_parameters() if p.requires_grad and ".gated." in key)
    assert trained(rows[LANGUAGE_MIXED].model) == trained(language) - gated


def test_packed_rows_of_the_bare_model_have_the_same_loss(rows):
    row = rows[LANGUAGE_MIXED]
    with torch.no_grad():
        loss = {}
        for name in (LANGUAGE_MIXED, LANGUAGE_PACKED):
            counts = [int((inputs["labels"][:, 1:] != -100).sum()) for inputs in rows[name].inputs]
            means = [float(row.model(**inputs).loss) for inputs in rows[name].inputs]
            loss[name] = sum(c * m for c, m in zip(counts, means, strict=True))
    assert loss[LANGUAGE_PACKED] == pytest.approx(loss[LANGUAGE_MIXED], rel=rounding(TERMS, 1))


def test_checkpointing_keeps_less_and_is_switched_off_again(rows, small_model):
    def peak(name):
        return rows[name].figures()["peak_bytes"]

    plain, less = peak(MIXED), peak(checkpointing(MIXED))
    assert 0 < less < plain
    assert 0 < peak(peers(checkpointing(MIXED))) < peak(peers(MIXED))
    assert flamingo_of(small_model).perceiver.gradient_checkpointing
    # Each row sets what it needs, whichever ran before it.
    assert peak(MIXED) == plain
    assert not flamingo_of(small_model).perceiver.gradient_checkpointing


def products(row):
    """Operations of a row without those of attention, which torch counts on a CPU since 2.15 only."""
    with FlopCounterMode(display=False) as counter:
        row()
    return sum(count for kind, count in counter.get_flop_counts()["Global"].items() if "attention" not in str(kind))


def test_packing_saves_operations(rows):
    counts = {name: products(rows[name]) for name in (PACKED, GROUPED, MIXED, ENCODER, RESAMPLER, GATED)}
    assert max(counts[PACKED], counts[GROUPED]) < counts[MIXED]
    assert counts[ENCODER] + counts[RESAMPLER] + counts[GATED] < counts[PACKED] / 2


def test_figures_of_a_matrix_product():
    model = torch.nn.Linear(30, 20, bias=False)
    figures = Row(model, lambda x: model(x).sum().backward(), [torch.ones(10, 30)] * 2, supervised=7).figures()
    # Two batches, forward and the weight's gradient; the latter lives beside the output and its gradient.
    assert (figures["learned"], figures["operations"]) == (7, 2 * 2 * (2 * 10 * 20 * 30))
    assert 4 * 20 * 30 < figures["peak_bytes"] < 4 * (20 * 30 + 3 * 10 * 20)


def test_a_row_adds_up_its_batches_and_frees_gradients_between_them():
    model = torch.nn.Linear(2, 1)
    calls = []

    def work(x):
        calls.append((x, model.weight.grad))
        model(torch.ones(2)).sum().backward()

    assert Row(model, work, [1, 2], supervised=3, before=lambda: calls.append("before"))() > 0
    assert calls == ["before", (1, None), (2, None)]


def test_ratios_are_of_the_rows_that_they_name():
    times = {name: [1.0] for name in JOINT}
    times |= {PACKED: [6.0], LANGUAGE_MIXED: [4.0], LANGUAGE_PACKED: [3.0], GATED: [5.0], MIXED: [8.0], GROUPED: [7.0]}
    times |= {VISUAL: [2.0], peers(VISUAL): [4.0], LANGUAGE: [3.0], peers(LANGUAGE): [4.0]}
    times |= {peers(MIXED): [10.0], peers(GROUPED): [14.0]}
    times |= {checkpointing(name): [2 * times[name][0]] for name in (PACKED, MIXED, GROUPED, VISUAL, LANGUAGE)}
    times |= {peers(checkpointing(name)): [20.0] for name in (MIXED, GROUPED, VISUAL, LANGUAGE)}
    assert training.ratios(times) == {
        "joint_step_over_parts": 1.0,
        "joint_step_over_packed_parts": 0.6,
        "joint_step_over_packed_parts_without_gated": 1.2,
        "joint_step_over_peer": 0.6,
        "joint_step_checkpointing_over_peer": 0.6,
        "joint_step_mixed_over_peer": 0.8,
        "joint_step_mixed_checkpointing_over_peer": 0.8,
        "joint_step_grouped_over_peer": 0.5,
        "joint_step_grouped_checkpointing_over_peer": 0.7,
        "visual_step_over_peer": 0.5,
        "visual_step_checkpointing_over_peer": 0.2,
        "language_step_over_peer": 0.75,
        "language_step_checkpointing_over_peer": 0.3,
    }


def test_compiled_steps_are_measured(small_cfg, drawn, stance):
    cfg = Config({**small_cfg.to_dict(), "compile": dict(backend="aot_eager")})
    rows = training.rows(build_model(cfg, device="cpu"), cfg, drawn, 2, 64)
    counts = torch._dynamo.utils.counters["stats"]
    counts.clear()
    rows[PACKED]()
    assert counts["unique_graphs"] == 0
    assert rows[COMPILED]() > 0
    assert not hasattr(rows[COMPILED], "figures")
    assert counts["unique_graphs"] > 0
    assert training.ratios({name: [2.0] for name in rows} | {COMPILED: [1.0]})["compiled_step_over_joint_step"] == 0.5
