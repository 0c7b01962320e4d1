import pytest


def config(visual, language):
    return dict(type="JointDataset", visual=visual, language=language)


def test_visual_first_then_language(build, caption_config, dolly_config):
    dataset = build(config([caption_config(3), caption_config(2, name="more")], [dolly_config(["red"] * 4)]))
    assert (dataset.visual_size, dataset.language_size, len(dataset)) == (5, 4, 9)
    assert [data["meta"]["dataset"] for data in dataset] == ["captions"] * 3 + ["more"] * 2 + ["dolly"] * 4
    assert dataset.metainfo == {"visual": ["captions", "more"], "language": ["dolly"]}


def test_epoch_is_passed_on_to_the_datasets(build, caption_config, dolly_config):
    part = build(caption_config(3))
    dataset = build(config([caption_config(3)], [dolly_config(["red"])]))
    for epoch in range(6):
        for i in range(3):
            assert dataset[epoch * 4 + i]["meta"] == part[epoch * 3 + i]["meta"]


def test_seed_is_passed_on_to_datasets_without_one(build, caption_config, dolly_config):
    own = dolly_config(["red"], name="own", seed=5)
    whole = config([caption_config(3)], [dolly_config(["red"]), own])
    for seed in (0, 7):
        dataset = build(whole | dict(seed=seed))
        assert [part.seed for part in (*dataset.visual, *dataset.language)] == [seed, seed, 5]
    assert "seed" not in whole["visual"][0]


def test_text_lengths_are_those_of_the_datasets(build, caption_config, dolly_config):
    dataset = build(config([caption_config(3)], [dolly_config(["red", "light blue"])]))
    parts = build(caption_config(3)), build(dolly_config(["red", "light blue"]))
    for epoch in range(4):
        lengths = [dataset.text_length(epoch * 5 + i) for i in range(5)]
        assert lengths == [parts[0].text_length(epoch * 3 + i) for i in range(3)] + [
            parts[1].text_length(epoch * 2 + i) for i in range(2)
        ]
    assert lengths[4] == lengths[3] + len("light blue") - len("red")


def test_one_list_may_be_empty(build, caption_config, dolly_config):
    assert build(config([], [dolly_config(["red"])])).visual_size == 0
    assert build(config([caption_config(1)], None)).language_size == 0
    with pytest.raises(ValueError, match="at least one"):
        build(config([], []))


def test_dataset_in_the_wrong_list_is_an_error(build, caption_config):
    with pytest.raises(ValueError, match="'captions' has source='visual', but is listed under 'language'"):
        build(config([], [caption_config(1)]))


def test_dataset_with_weight_0_is_not_read(build, caption_config, dolly_config):
    absent = dict(caption_config(1, name="absent"), weight=0, ann_file="absent.json")
    dataset = build(config([absent, caption_config(2)], [dolly_config(["red"], weight=0)]))
    assert dataset.metainfo == {"visual": ["captions"], "language": []}
    assert len(dataset) == 2
    with pytest.raises(ValueError, match="at least one"):
        build(config([absent], []))


def test_weights_do_not_change_the_samples(build, caption_config, dolly_config):
    dataset = build(config([caption_config(3, weight=2.5)], [dolly_config(["red"] * 4, weight=0.5)]))
    assert (dataset.visual_size, dataset.language_size, len(list(dataset))) == (3, 4, 7)
