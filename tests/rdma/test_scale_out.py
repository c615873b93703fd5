"""A cluster of processes that scales out by RDMA while it serves, and its tokens."""

import json
import pathlib

import pytest

import jscale
from jscale.proto.v1 import jscale_pb2 as pb
from tests.e2e.crowd import Crowd
from tests.rdma.devices import DEVICES, device_counters, require_devices

require_devices()
pytestmark = [pytest.mark.rdma, pytest.mark.timeout(240)]

MAX_TOKENS = 48


def test_one_becomes_two_while_it_serves(tmp_path):
    """As small as it can be: where devices are emulated, compiling takes minutes."""
    oracle = pathlib.Path(jscale.BUNDLED_MODEL, "greedy_expected.json").read_text()
    expected = json.loads(oracle)["greedy_token_ids"][:MAX_TOKENS]
    with jscale.LocalCluster(
        jscale.BUNDLED_MODEL,
        transport="rdma",
        rdma_devices=",".join(DEVICES[:2]),
        max_sequences=1,
        step_rows=16,
        kv_mib=16,
        max_context=64,
        cache_dir=str(tmp_path / "cache"),
        runtime_dir=str(tmp_path / "logs"),
        start_timeout_s=200,
    ) as cluster:
        before = device_counters()
        crowd = Crowd(cluster, 2, MAX_TOKENS)
        final = cluster.scale_to(2).wait(timeout_s=200)
        assert crowd.join() == [expected] * 2
        assert [worker.phase for worker in final.workers] == [pb.PHASE_LOCAL] * 2
        num_sent = sum(device_counters().values()) - sum(before.values())
        assert num_sent > sum(final.block_sizes_bytes) / 4096  # Not by a socket.
