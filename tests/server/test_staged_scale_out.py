"""A scale-out between devices that the transport does not reach: through a ring."""

import json
import pathlib

import jscale

MAX_TOKENS = 60


def test_a_device_that_was_filled_through_host_memory_gives_the_right_tokens(tmp_path):
    text = (pathlib.Path(jscale.BUNDLED_MODEL) / "greedy_expected.json").read_text()
    expected = json.loads(text)["greedy_token_ids"][:MAX_TOKENS]
    with jscale.LocalCluster(
        jscale.BUNDLED_MODEL,
        device_memory="emulated",
        cache_dir=str(tmp_path / "cache"),
        runtime_dir=str(tmp_path / "run"),
    ) as cluster:
        cluster.scale_to(2).wait(timeout_s=120)
        _, second = cluster.status().workers
        assert second.received_bytes > 0
        cluster.workers["w0"].terminate()  # What w1 gives is what it was sent.
        cluster.workers["w0"].reap(30)
        tokens = cluster.generate([1], max_tokens=MAX_TOKENS, ignore_eos=True)
        assert [token.id for token in tokens] == expected
        (second,) = cluster.status().workers
        assert second.data_path == "staged: this transport reaches host memory only"
        assert second.num_tokens == MAX_TOKENS
