"""Imports while Python's garbage collector waits."""

import gc

import pytest

from mmgpt.utils.imports import heavy_imports, without_collection


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_afterwards_what_it_was_before(enabled):
    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(ImportError), without_collection():
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled() is enabled
    finally:
        gc.enable()


def test_a_tools_modules_are_left_out_of_later_collections():
    before = gc.get_freeze_count()
    try:
        with heavy_imports():
            kept = [[]]
        assert gc.get_freeze_count() > before
        assert not any(each is kept for each in gc.get_objects())
    finally:
        gc.unfreeze()
