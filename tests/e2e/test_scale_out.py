"""Real processes, real sockets, and the right tokens whatever happens to them."""

from collections.abc import Iterator

import pytest

import jscale
from jscale.proto.v1 import jscale_pb2 as pb
from tests.e2e.crowd import Crowd

MAX_TOKENS = 200


@pytest.fixture
def cluster(cache_dir: str) -> Iterator[jscale.LocalCluster]:
    """One worker whose link needs about 4 s for the model, and slow layers."""
    with jscale.LocalCluster(
        jscale.BUNDLED_MODEL,
        num_workers=1,
        link_mbit_s=4,
        emulate_layer_us=1000,
        max_sequences=4,
        cache_dir=cache_dir,
    ) as cluster:
        yield cluster


def test_one_becomes_four_while_it_serves(
    cluster: jscale.LocalCluster, oracle: list[int]
) -> None:
    crowd = Crowd(cluster, 24, MAX_TOKENS)
    cuts, phases = set(), set()
    for status in cluster.scale_to(4).progress(timeout_s=90):
        phases.update(worker.phase for worker in status.workers)
        cuts.update(
            tuple((stage.worker, stage.num_blocks) for stage in pipeline.stages)
            for pipeline in status.pipelines
        )
    assert crowd.join() == [oracle[:MAX_TOKENS]] * 24
    assert {pb.PHASE_LOADING, pb.PHASE_PIPELINED, pb.PHASE_LOCAL} <= phases
    # With how many blocks a target begins depends on how fast this machine is.
    assert any(cut[0][0] != "w0" and cut[-1][0] == "w0" for cut in cuts), cuts
    final = cluster.status()
    assert [worker.phase for worker in final.workers] == [pb.PHASE_LOCAL] * 4
    assert final.serving.num_finished == 24


def test_sigterm_of_a_worker_hands_its_sequences_over(
    cluster: jscale.LocalCluster, oracle: list[int]
) -> None:
    cluster.scale_to(2).wait(timeout_s=60)
    crowd = Crowd(cluster, 8, MAX_TOKENS)
    running = cluster.workers["w0"]
    running.terminate()
    assert crowd.join() == [oracle[:MAX_TOKENS]] * 8
    running.reap(20)
    assert running.exit_code == 0
    assert [worker.worker for worker in cluster.status().workers] == ["w1"]


def test_scale_in_lets_the_youngest_go_and_loses_nothing(
    cluster: jscale.LocalCluster, oracle: list[int]
) -> None:
    cluster.scale_to(2).wait(timeout_s=60)
    crowd = Crowd(cluster, 8, MAX_TOKENS)
    final = cluster.scale_to(1).wait(timeout_s=30)
    assert [worker.worker for worker in final.workers] == ["w0"]
    assert crowd.join() == [oracle[:MAX_TOKENS]] * 8
