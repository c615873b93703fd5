"""Real processes that follow the load: a worker comes for a crowd and goes after it."""

import jscale
from jscale.proto.v1 import jscale_pb2 as pb
from tests.e2e.crowd import Crowd

MAX_TOKENS = 200


def wait_for(cluster: jscale.LocalCluster, num_wanted: int) -> pb.ModelStatusResponse:
    for status in cluster.client.watch(interval_ms=50, timeout_s=120):
        if status.num_workers_wanted == num_wanted:
            return status
    raise AssertionError("the gateway ended")


def test_a_worker_comes_for_a_crowd_and_goes_after_it(
    cache_dir: str, oracle: list[int]
) -> None:
    with jscale.LocalCluster(
        jscale.BUNDLED_MODEL,
        num_workers=1,
        autoscale="anticipating",
        max_workers=2,
        emulate_layer_us=1000,
        max_sequences=4,
        cache_dir=cache_dir,
    ) as cluster:
        crowd = Crowd(cluster, 16, MAX_TOKENS)
        wait_for(cluster, 2)
        assert crowd.join() == [oracle[:MAX_TOKENS]] * 16
        wait_for(cluster, 1)
