import pickle

import pytest

from mmgpt.datasets.serialized import serialize

SAMPLES = [{"id": str(i), "images": [], "turns": [{"question": "x" * i}]} for i in range(5)]


def test_serialized_samples_equal_the_originals():
    packed = serialize(iter(SAMPLES))
    assert list(packed) == SAMPLES
    assert len(packed) == 5
    assert packed[-1] == SAMPLES[4]
    assert packed[1:3] == SAMPLES[1:3]
    assert packed[::-2] == SAMPLES[::-2]
    assert packed.ends[-1] == len(packed.data) == sum(len(pickle.dumps(sample)) for sample in SAMPLES)
    with pytest.raises(IndexError):
        packed[5]


def test_each_access_gives_a_new_object():
    packed = serialize(SAMPLES)
    packed[0]["id"] = "changed"
    assert packed[0] == SAMPLES[0]
    assert serialize(packed) is packed


def test_no_samples_can_be_serialized():
    assert list(serialize([])) == []
    assert not serialize([])
