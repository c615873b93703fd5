"""kill -9 of random processes at random moments costs no request and no token."""

import pytest

from bench.kill_episode import KINDS, Episode, EpisodeConfig, problems


@pytest.mark.parametrize("seed", [0, 1])
def test_kills_lose_no_request_and_no_token(seed: int, cache_dir: str) -> None:
    """Every kind of victim once; `bench/kills.py --episode=SEED` plays more."""
    config = EpisodeConfig(
        seed=seed,
        num_kills=len(KINDS),
        cache_dir=cache_dir,
        num_clients=12,
        max_tokens=40,
        sizes=(3,),
        kills_at_once=(3,),
        link_mbit_s=8.0,
        delay_s=1.0,
    )
    kills = Episode(config).run()
    assert problems(kills) == []
    assert len(kills) == len(KINDS)
    assert sum(kill.num_completed for kill in kills) > 0
