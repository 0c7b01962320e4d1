from itertools import islice
from types import SimpleNamespace

import pytest
from mmengine.dataset import DefaultSampler
from mmengine.runner import Runner
from torch.utils.data import DataLoader, Dataset

from mmgpt.datasets import JointBatchSampler, samplers


class Part(list):
    """A part of `Sizes`: a length and a weight."""

    def __init__(self, size, weight=1.0, name="part"):
        super().__init__(range(size))
        self.weight, self.name = weight, name


class Sizes(Dataset):
    """A joint dataset of nothing but its sizes: numbers of samples, or lists of parts."""

    def __init__(self, visual, language):
        self.visual = [Part(visual)][:visual] if isinstance(visual, int) else visual
        self.language = [Part(language)][:language] if isinstance(language, int) else language
        self.visual_size = sum(map(len, self.visual))

    def __len__(self):
        return self.visual_size + sum(map(len, self.language))

    def __getitem__(self, index):
        return index

    def text_length(self, index):
        return self.length(*divmod(index, len(self)))

    @staticmethod
    def length(epoch, index):
        return (7 * index + 3 * epoch) % 11


def make(visual, language, batch=2, language_batch=1, rank=0, world=1, shuffle=True, seed=0, group=1):
    sampler = DefaultSampler(Sizes(visual, language), shuffle=shuffle, seed=seed)
    sampler.rank, sampler.world_size = rank, world
    return JointBatchSampler(sampler, batch, language_batch, group)


def epoch(batches, number):
    batches.sampler.set_epoch(number)
    return list(batches)


def split(batches, drawn):
    """(epoch, index) of the visual samples and (pass, index) of the language samples, batch by batch."""
    size, first = len(batches.sampler.dataset), batches.sampler.dataset.visual_size
    pairs = [[divmod(i, size) for i in batch] for batch in drawn]
    return [[p for p in b if p[1] < first] for b in pairs], [[p for p in b if p[1] >= first] for b in pairs]


def flat(rows):
    return [item for row in rows for item in row]


def test_one_epoch_is_one_pass_over_the_visual_data():
    batches = make(7, 3)
    visual, language = split(batches, epoch(batches, 2))
    assert sorted(flat(visual)) == [(2, i) for i in range(7)]
    assert [len(row) for row in visual] == [2, 2, 2, 1]
    assert len(batches) == 4
    assert [len(row) for row in language] == [1] * 4


def test_language_stream_continues_over_epochs_in_complete_passes():
    batches = make(7, 6)
    drawn = flat(flat(split(batches, epoch(batches, number))[1]) for number in range(6))
    assert len(drawn) == 24
    for number in range(4):
        assert sorted(drawn[6 * number : 6 * number + 6]) == [(number, 7 + i) for i in range(6)]
    assert [i for _, i in drawn[:6]] != [i for _, i in drawn[6:12]]


def test_orders_differ_by_epoch_and_seed_only():
    assert epoch(make(20, 5), 1) == epoch(make(20, 5), 1)
    orders = [[i % 25 for i in flat(epoch(make(20, 5, seed=seed), n))] for seed in (0, 1) for n in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert epoch(make(4, 2, shuffle=False), 0) == [[0, 1, 4], [2, 3, 5]]


@pytest.mark.parametrize("visual", [11, 0])
@pytest.mark.parametrize("world", [2, 3, 4])
def test_processes_together_have_the_batches_of_one_process(world, visual):
    """The whole epoch, batch by batch and in order, its short end included, and no sample twice."""
    ranks = [make(visual, 5, rank=rank, world=world, language_batch=2) for rank in range(world)]
    alone = make(visual, 5, 2 * world, 2 * world)
    drawn = [[split(one, epoch(one, number)) for one in ranks] for number in range(2)]
    for number, parts in enumerate(drawn):
        assert len({len(half) for part in parts for half in part}) == 1
        for together, expected in zip(zip(*parts, strict=True), split(alone, epoch(alone, number)), strict=True):
            batches = [sorted(flat(batch)) for batch in zip(*together, strict=True)]
            assert batches == [sorted(batch) for batch in expected]
    halves = [flat(flat(part[0 if visual else 1]) for part in parts) for parts in drawn]
    assert [sorted(half) for half in halves] == [[(n, i) for i in range(visual or 5)] for n in range(2)]


def test_fewer_samples_than_processes():
    ranks = [make(1, 0, batch=1, rank=rank, world=4) for rank in range(4)]
    assert [epoch(one, 0) for one in ranks] == [[[0]], [[]], [[]], [[]]]


def test_start_skips_batches_without_changing_the_rest():
    batches = make(9, 4, language_batch=3)
    whole = epoch(batches, 3)
    batches.start = 2
    assert epoch(batches, 3) == whole[2:]
    assert len(batches) == 5
    batches.start = 0
    assert epoch(batches, 3) == whole


def test_iterating_draws_nothing_before_the_first_batch():
    batches = make(9, 4)
    batches.sampler.set_epoch(0)
    first = iter(batches)
    batches.start = 1
    assert next(first) == epoch(batches, 0)[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_start_in_a_loader(workers):
    batches = make(9, 4)
    whole = epoch(batches, 0)
    batches.start = 3
    loader = DataLoader(batches.sampler.dataset, batch_sampler=batches, num_workers=workers, collate_fn=list)
    assert list(loader) == whole[3:]


def test_sorted_batches_hold_the_same_samples():
    plain, grouped = make(23, 7, batch=4, language_batch=2), make(23, 7, batch=4, language_batch=2, group=3)
    before, after = [split(one, epoch(one, 2)) for one in (plain, grouped)]
    assert len(plain) == len(grouped) == 6
    for kind in range(2):
        for first in (0, 3):
            assert sorted(flat(before[kind][first : first + 3])) == sorted(flat(after[kind][first : first + 3]))
    assert sorted(map(len, after[0])) == [3, 4, 4, 4, 4, 4]
    assert after[0] != before[0]


def test_rows_of_a_sorted_batch_have_similar_lengths():
    grouped = make(40, 24, batch=4, language_batch=2, group=5)
    visual, language = split(grouped, epoch(grouped, 1))
    lengths = [[[Sizes.length(*pair) for pair in row] for row in part[:5]] for part in (visual, language)]
    for part in lengths:
        ordered = sorted(part)
        assert flat(ordered) == sorted(flat(part))  # one batch ends where the next begins
        assert part != ordered
    # The shortest visual rows meet the shortest text.
    by_length = sorted(range(5), key=lambda i: lengths[0][i])
    assert [lengths[1][i] for i in by_length] == sorted(lengths[1])


def test_sorted_batches_keep_their_order_without_shuffling():
    drawn = epoch(make(8, 4, shuffle=False, group=4), 0)
    assert [[Sizes.length(0, i) for i in batch[:2]] for batch in drawn] == [[0, 2], [3, 5], [6, 7], [9, 10]]


@pytest.mark.parametrize("start", [1, 2, 3, 4])
def test_start_within_sorted_batches(start):
    batches = make(9, 4, language_batch=3, group=2)
    whole = epoch(batches, 3)
    batches.start = start
    assert epoch(batches, 3) == whole[start:]


def test_sorted_batches_below_1_is_an_error():
    with pytest.raises(ValueError, match="sorted_batches=0"):
        make(5, 3, group=0)


def test_language_only():
    batches = make(0, 5, batch=7, language_batch=2)
    drawn = epoch(batches, 1)
    assert [len(row) for row in drawn] == [2, 2, 1]
    assert len(batches) == 3
    assert sorted(divmod(i, 5) for i in flat(drawn)) == [(1, i) for i in range(5)]


def test_visual_only():
    assert [len(row) for row in epoch(make(5, 0, language_batch=1), 0)] == [2, 2, 1]


def test_data_that_would_never_be_drawn_is_an_error():
    with pytest.raises(ValueError, match="language_batch_size=0, but there are 3 such samples"):
        make(5, 3, language_batch=0)
    with pytest.raises(ValueError, match="batch_size=0, but there are 5"):
        make(5, 3, batch=0)


def test_other_datasets_are_refused():
    with pytest.raises(ValueError, match="needs a JointDataset, got list"):
        JointBatchSampler(SimpleNamespace(dataset=[1, 2]), 1)


def test_order_without_weights_equals_that_of_earlier_releases():
    """Figures of runs depend on it."""
    whole, second = make(7, 5, language_batch=2), make(7, 5, language_batch=2, rank=1, world=2, seed=4)
    assert epoch(whole, 3) == [[41, 37, 55, 67], [39, 36, 69, 71], [40, 42, 70, 68], [38, 81, 82]]
    assert epoch(second, 3) == [[37, 38, 69, 68], [40, 67, 81]]
    grouped = make(7, 5, language_batch=2, group=3)
    assert epoch(grouped, 1) == [[18, 15, 21, 31], [17, 14, 20, 35], [16, 13, 32, 34], [12, 33, 45]]
    assert epoch(make(0, 5, language_batch=2), 2) == [[10, 11], [13, 14], [12]]
    # The number of datasets that the samples come from does not matter.
    parted = make([Part(4), Part(3)], [Part(2), Part(3)], language_batch=2)
    assert epoch(parted, 3) == epoch(whole, 3)


def weighted(**more):
    """5 x 2 + 8 / 4 = 12 visual samples an epoch; 4 / 2 + 3 = 5 language samples."""
    return make([Part(5, 2.0), Part(8, 0.25)], [Part(4, 0.5), Part(3)], **more)


def test_epoch_has_each_dataset_by_its_weight():
    batches = weighted()
    epochs = [split(batches, epoch(batches, number)) for number in range(4)]
    assert len(batches) == 6
    assert all([len(row) for row in visual] == [2] * 6 for visual, _ in epochs)
    drawn = [flat(visual) for visual, _ in epochs]
    for number in range(4):
        twice = sorted(pair for pair in drawn[number] if pair[1] < 5)
        assert twice == [(n, i) for n in (2 * number, 2 * number + 1) for i in range(5)]
    assert sorted(pair for pair in flat(drawn) if pair[1] >= 5) == [(0, i) for i in range(5, 13)]
    # The language data is drawn endlessly: 24 samples are 4 of its epochs and 4 samples more.
    language = flat(flat(row) for _, row in epochs)
    assert sorted(pair for pair in language[:20] if pair[1] < 17) == [(n, i) for n in (0, 1) for i in range(13, 17)]
    for number in range(4):
        whole = sorted(i for n, i in language[5 * number : 5 * number + 5] if i >= 17)
        assert whole == [17, 18, 19]


def test_language_only_with_weights():
    batches = make([], [Part(4, 0.5), Part(3)], language_batch=2)
    drawn = [flat(epoch(batches, number)) for number in range(2)]
    assert len(batches) == 3
    assert [len(row) for row in drawn] == [5, 5]
    assert sorted(flat(drawn)) == [0, 1, 2, 3, 4, 5, 6, 11, 12, 13]


@pytest.mark.parametrize("world", [2, 5])
def test_processes_share_a_weighted_epoch(world):
    ranks = [weighted(rank=rank, world=world) for rank in range(world)]
    drawn = flat(flat(split(one, epoch(one, 2))[0]) for one in ranks)
    assert sorted(drawn) == sorted(flat(split(weighted(), epoch(weighted(), 2))[0]))


@pytest.mark.parametrize("group", [1, 4])
def test_resuming_within_a_weighted_epoch(group):
    batches = weighted(group=group)
    whole = epoch(batches, 3)
    for start in range(1, 6):
        batches.start = start
        assert epoch(batches, 3) == whole[start:]


def test_mixture_is_logged(monkeypatch):
    said = []
    monkeypatch.setattr(samplers, "print_log", lambda text, *_: said.append(text))
    make([Part(5, 2.0, "photos"), Part(8, 0.25)], [Part(4, 1.0, "text")], batch=3, language_batch=2)
    [table] = said
    assert [line.split()[0] for line in table.splitlines()[2:]] == ["photos", "part", "text"]
    # 12 visual samples are 4 batches, with 2 language samples each.
    assert [line.split()[-2:] for line in table.splitlines()[2:]] == [["10", "50.0%"], ["2", "10.0%"], ["8", "40.0%"]]


def test_repeated_samples_have_new_random_choices(build, caption_config):
    """Twenty passes in one epoch: caption and question are chosen again each time."""
    dataset = build(dict(type="JointDataset", visual=[caption_config(2, weight=20)]))
    batches = JointBatchSampler(DefaultSampler(dataset, shuffle=True, seed=0), 2)
    metas = [dataset[i]["meta"] for i in flat(batches)]
    assert len(metas) == 40
    assert len(batches) == 20
    for name in ("0", "1"):
        chosen = [(meta["prompt"], meta["answer"]) for meta in metas if meta["id"].endswith(f"{name}.png")]
        assert len(chosen) == 20
        assert len(set(chosen)) == 4


def test_batches_of_the_runner_are_mixed(caption_config, dolly_config):
    config = dict(
        batch_size=2,
        num_workers=0,
        dataset=dict(type="mmgpt.JointDataset", visual=[caption_config(3)], language=[dolly_config(["red", "blue"])]),
        sampler=dict(type="DefaultSampler", shuffle=True),
        batch_sampler=dict(type="mmgpt.JointBatchSampler", language_batch_size=1),
        collate_fn=dict(type="collate_conversations"),
    )
    loader = Runner.build_dataloader(config, seed=0)
    batches = list(islice(loader, 3))
    assert [batch["sources"] for batch in batches] == [["visual", "visual", "language"], ["visual", "language"]]
    assert [batch["image_counts"].tolist() for batch in batches] == [[1, 1, 0], [1, 0]]
