"""Admission control: limits on number and time of requests, and shutdown."""

import asyncio
from contextlib import ExitStack

import pytest

from mmgpt.server.admission import Admission
from mmgpt.server.errors import ApiError


def test_an_ended_request_makes_room_for_another():
    async def run():
        admission = Admission(2, 60, 60)
        with ExitStack() as stack:
            for _ in range(2):
                stack.enter_context(admission.admit())
            with pytest.raises(ApiError) as caught, admission.admit():
                pass
            assert caught.value.status == 429
        with admission.admit():
            assert len(admission.active) == 1

    asyncio.run(run())


def test_an_active_request_yields_events_until_the_end():
    async def run():
        with Admission(1, 60, 60).admit() as active:
            for event in ("a", "b", None, "c"):
                await asyncio.to_thread(active.put, event)
            return [event async for event in active]

    assert asyncio.run(run()) == ["a", "b"]


@pytest.mark.parametrize("time_limit, shutdown_limit, status", [(0.02, 60, 504), (60, 0.02, 503)])
def test_the_time_of_a_request_is_limited(time_limit, shutdown_limit, status):
    async def run():
        admission = Admission(1, time_limit, shutdown_limit)
        with admission.admit() as active:
            if status == 503:
                admission.close()
                admission.close()
            async for _ in active:
                pass

    with pytest.raises(ApiError) as caught:
        asyncio.run(run())
    assert caught.value.status == status


def test_no_request_is_admitted_during_shutdown():
    async def run():
        admission = Admission(1, 60, 60)
        admission.close()
        with admission.admit():
            pass

    with pytest.raises(ApiError) as caught:
        asyncio.run(run())
    assert (caught.value.status, caught.value.headers) == (503, {"Retry-After": "5"})
