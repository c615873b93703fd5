"""Seeded runs with loss, delay, crash, restart and slow links.

`JSCALE_SEEDS=1000:5000 pytest tests/simulation/test_faults.py` runs others than the
few of the suite. A failing seed is in the test's name; `python -m
tests.simulation.replay SEED` prints its transcript.
"""

import os

import pytest

from tests.simulation.scenarios import draw, run

FIRST, _, LAST = os.environ.get("JSCALE_SEEDS", "0:100").partition(":")


@pytest.mark.parametrize("seed", range(int(FIRST), int(LAST)))
def test_every_request_is_served_and_all_comes_to_rest(seed):
    run(draw(seed))


@pytest.mark.parametrize("seed", [3, 14, 15])
def test_seed_replays_byte_for_byte(seed):
    assert run(draw(seed)) == run(draw(seed))
