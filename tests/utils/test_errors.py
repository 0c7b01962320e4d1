"""Errors about samples carry the location of the sample as data, also between processes."""

import pickle
import traceback

import pytest
from torch.utils.data import DataLoader

from mmgpt.cli.tool import user_message
from mmgpt.datasets.feature_cache import CacheMiss
from mmgpt.utils.errors import MissingImageError, SampleError, SampleLocation, located

LOCATION = SampleLocation("own: it's", 'a "b", record 4: c.json', 3, "x\n'y'", "/images/ä.png")


def test_text_is_the_known_fields_and_the_reason():
    sample = {"file": "f.json", "record": 3, "id": "x", "source": "visual"}
    assert str(SampleLocation.of(sample)) == "file 'f.json', record 3, id 'x'"
    assert str(SampleLocation.of(sample, image="1.png")) == "file 'f.json', record 3, id 'x', image '1.png'"
    assert str(SampleError("no answer", SampleLocation("d"))) == "dataset 'd': no answer"
    assert str(SampleError("no answer")) == "no answer"


@pytest.mark.parametrize("kind", [SampleError, MissingImageError, CacheMiss])
def test_pickled_errors_keep_reason_and_location(kind):
    error = pickle.loads(pickle.dumps(kind("no answer", LOCATION)))
    assert type(error) is kind
    assert (error.reason, error.location) == ("no answer", LOCATION)
    assert str(error) == f"{LOCATION}: no answer"


class BrokenSample:
    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise self.error


@pytest.mark.parametrize("kind", [SampleError, MissingImageError, CacheMiss])
@pytest.mark.parametrize("location", [LOCATION, SampleLocation()])
def test_errors_from_a_worker_process_keep_reason_and_location(kind, location):
    error = kind("dataset 'of the reason': no answer, record 2", location)
    if location == SampleLocation():
        error = kind("no answer")
    with pytest.raises(kind) as raised:
        list(DataLoader(BrokenSample(error), num_workers=1))
    traceback.clear_frames(raised.tb)  # torch's refer to each other, and keep worker processes
    assert (raised.value.reason, raised.value.location) == (error.reason, location)
    assert user_message(raised.value) == str(error)
    assert "in __getitem__" in raised.value.__notes__[0]


def test_unknown_fields_are_filled_in():
    with pytest.raises(SampleError) as raised, located(SampleLocation("d", "a.json", 3)):
        raise SampleError("no answer", SampleLocation(file="b.json", id="x"))
    assert raised.value.location == SampleLocation("d", "b.json", 3, "x")
    assert str(raised.value) == "dataset 'd', file 'b.json', record 3, id 'x': no answer"


def test_errors_of_other_types_get_a_note():
    with pytest.raises(KeyError) as raised, located(SampleLocation("d", record=3)):
        raise KeyError("answer")
    assert raised.value.__notes__ == ["in dataset 'd', record 3"]
