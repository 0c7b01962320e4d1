"""Who is let in."""

import asyncio
from contextlib import ExitStack

import pytest

from mmgpt.server.admission import Admission
from mmgpt.server.errors import ApiError


def test_places_are_given_back():
    async def run():
        admission = Admission(2, 60, 60)
        with ExitStack() as stack:
            for _ in range(2):
                stack.enter_context(admission.enter())
            with pytest.raises(ApiError) as caught, admission.enter():
                pass
            assert caught.value.status == 429
        with admission.enter():
            assert len(admission.inside) == 1

    asyncio.run(run())


def test_a_visit_yields_what_is_put_until_the_end():
    async def run():
        with Admission(1, 60, 60).enter() as visit:
            for event in ("a", "b", None, "c"):
                await asyncio.to_thread(visit.put, event)
            return [event async for event in visit]

    assert asyncio.run(run()) == ["a", "b"]


@pytest.mark.parametrize("time_limit, shutdown_limit, status", [(0.02, 60, 504), (60, 0.02, 503)])
def test_the_time_inside_is_limited(time_limit, shutdown_limit, status):
    async def run():
        admission = Admission(1, time_limit, shutdown_limit)
        with admission.enter() as visit:
            if status == 503:
                admission.close()
                admission.close()
            async for _ in visit:
                pass

    with pytest.raises(ApiError) as caught:
        asyncio.run(run())
    assert caught.value.status == status


def test_nobody_is_let_in_at_the_end():
    async def run():
        admission = Admission(1, 60, 60)
        admission.close()
        with admission.enter():
            pass

    with pytest.raises(ApiError) as caught:
        asyncio.run(run())
    assert (caught.value.status, caught.value.headers) == (503, {"Retry-After": "5"})
