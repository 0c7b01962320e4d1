"""The preallocated KV cache against transformers' own, also after changes between steps."""

import pytest
import torch
from transformers import DynamicCache

from mmgpt.inference.kv_cache import PREALLOCATED, PreallocatedLayer, preallocated_cache


def layers(rows=2, length=3):
    return tuple((torch.randn(rows, 2, length, 4), torch.randn(rows, 2, length, 4)) for _ in range(2))


def same(one, other):
    return all(
        torch.equal(a.keys, b.keys) and torch.equal(a.values, b.values)
        for a, b in zip(one.layers, other.layers, strict=True)
    )


def step(caches, rows, length=1):
    for i in range(2):
        new = torch.randn(rows, 2, length, 4), torch.randn(rows, 2, length, 4)
        given = [cache.update(*new, i) for cache in caches]
        for other in given[1:]:
            assert all(map(torch.equal, given[0], other))


def test_preallocated_cache_equals_transformers_own():
    known = layers()
    caches = DynamicCache(known), preallocated_cache(known)
    for _ in range(2 * PREALLOCATED + 2):
        step(caches, 2)
    step(caches, 2, length=PREALLOCATED + 5)
    assert same(*caches)
    assert caches[1].get_seq_length() == 3 * PREALLOCATED + 10


def test_initial_keys_and_values_do_not_change():
    known = layers()
    before = [[x.clone() for x in pair] for pair in known]
    for cache in (preallocated_cache(known), preallocated_cache(known)):
        cache.reorder_cache(torch.tensor([1, 1]))
        step([cache], 2)
    assert all(
        torch.equal(x, y) for pair, old in zip(known, before, strict=True) for x, y in zip(pair, old, strict=True)
    )


def test_a_step_copies_nothing_while_preallocated_positions_are_left():
    layer = PreallocatedLayer(*layers()[0])
    new = torch.randn(2, 2, 1, 4)
    layer.update(new, new)
    place = layer.keys.data_ptr()
    for _ in range(PREALLOCATED):
        layer.update(new, new)
    assert layer.keys.data_ptr() == place
    layer.update(new, new)
    assert layer.keys.data_ptr() != place


@pytest.mark.parametrize("change", ["rows", "crop", "longer"])
def test_keys_and_values_may_be_replaced_between_steps(change):
    known = layers()
    caches = DynamicCache(known), preallocated_cache(known)
    step(caches, 2)
    for cache in caches:
        for layer in cache.layers:
            for name in ("keys", "values"):
                x = getattr(layer, name)
                changed = {"rows": x[[1]], "crop": x[:, :, :-2], "longer": torch.cat((torch.zeros_like(x), x), dim=2)}
                setattr(layer, name, changed[change])
    for _ in range(3):
        step(caches, 1 if change == "rows" else 2)
    assert same(*caches)


def test_reordering_beams_leaves_the_shared_prefix_in_place():
    known = layers()
    caches = DynamicCache(known), preallocated_cache(known)
    for cache in caches:
        cache.batch_repeat_interleave(2)
    for layer in caches[1].layers:
        layer.common_tokens = 3
    for order in ([1, 0, 2, 2], [0, 0, 3, 2], [1, 1, 3, 3]):
        for cache in caches:
            cache.reorder_cache(torch.tensor(order))
        step(caches, 4)
    assert same(*caches)
