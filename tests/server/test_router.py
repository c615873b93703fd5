"""The router as a transcript: what happened (>), and what it wants done."""

import inspect

import pytest

from jscale.core.ids import PipelineId
from jscale.server.router import FRUITLESS_MAX
from tests.server.router_script import Script

SCRIPTS = {
    "a request waits until there is a replica whose head is attached": """
        > submit a
        > replicas 1:w0:local:2
        > attach w0
        w0 < submit a#0 to 1
        > w0 emits a#0 0 17
        a gets 17 at 0
        > w0 finishes a#0 stop
        a ends: stop
        """,
    "a local replica goes before a pipelined one, the least loaded first": """
        > replicas 1:w0:pipe:4 2:w1:local:2 3:w2:local:2
        > attach w0
        > attach w1
        > attach w2
        > submit a
        w1 < submit a#0 to 2
        > submit b
        w2 < submit b#0 to 3
        > submit c
        w1 < submit c#0 to 2
        > submit d
        w2 < submit d#0 to 3
        > submit e
        w0 < submit e#0 to 1
        """,
    "load is counted against capacity": """
        > replicas 1:w0:pipe:2 2:w1:pipe:4
        > attach w0
        > attach w1
        > submit a
        w0 < submit a#0 to 1
        > submit b
        w1 < submit b#0 to 2
        > submit c
        w1 < submit c#0 to 2
        > submit d
        w0 < submit d#0 to 1
        """,
    "what waits goes to a new replica at once, first come first served": """
        > replicas 1:w0:local:1
        > attach w0
        > submit a
        w0 < submit a#0 to 1
        > submit b
        > submit c
        > replicas 1:w0:local:1 2:w1:local:1
        > attach w1
        w1 < submit b#0 to 2
        > w0 finishes a#0 length
        a ends: length
        w0 < submit c#0 to 1
        """,
    "a returned sequence goes on elsewhere, after the tokens its client has": """
        > replicas 1:w0:pipe:2
        > attach w0
        > submit a
        w0 < submit a#0 to 1
        > w0 emits a#0 0 17
        a gets 17 at 0
        > w0 emits a#0 1 18
        a gets 18 at 1
        > replicas 2:w0:local:2
        > w0 returns a#0
        w0 < submit a#1 to 2 after [17, 18]
        > w0 emits a#1 2 19
        a gets 19 at 2
        """,
    "where a replica left the KV is told to the next one, and to no later one": """
        > replicas 1:w0:pipe:2
        > attach w0
        > submit a
        w0 < submit a#0 to 1
        > w0 emits a#0 0 17
        a gets 17 at 0
        > replicas 2:w1:local:2
        > attach w1
        > w0 returns a#0 5
        w1 < submit a#1 to 2 after [17], kv of 5
        > w0 moved a#0 5
        > w1 moved a#1 5
        > replicas 2:w1:local:2 3:w2:local:2
        > attach w2
        > lose w1
        w2 < submit a#2 to 3 after [17]
        """,
    "what an old attempt says is dropped": """
        > replicas 1:w0:pipe:2 2:w1:pipe:2
        > attach w0
        > attach w1
        > submit a
        w0 < submit a#0 to 1
        > w0 returns a#0
        w1 < submit a#1 to 2
        > w0 emits a#0 0 17
        > w0 finishes a#0 stop
        > w0 returns a#0
        > w0 emits a#1 0 17
        > w1 emits a#1 0 17
        a gets 17 at 0
        """,
    "a token that was delivered is not delivered again": """
        > replicas 1:w0:pipe:2
        > attach w0
        > submit a
        w0 < submit a#0 to 1
        > w0 emits a#0 0 17
        a gets 17 at 0
        > w0 emits a#0 0 17
        > w0 emits a#0 1 18
        a gets 18 at 1
        """,
    "a head that leaves out a token is not believed": """
        > replicas 1:w0:pipe:1
        > attach w0
        > submit a
        w0 < submit a#0 to 1
        > w0 emits a#0 1 18
        w0 < cancel a
        w0 < submit a#1 to 1
        """,
    "a replica that gave back rests, then may be tried again": """
        > replicas 1:w0:pipe:2
        > attach w0
        > submit a
        w0 < submit a#0 to 1
        > w0 returns a#0
        > submit b
        > at 0.09
        > at 0.11
        w0 < submit a#1 to 1
        w0 < submit b#0 to 1
        """,
    "a returned sequence keeps its place before those that came later": """
        > replicas 1:w0:pipe:2
        > attach w0
        > submit a
        w0 < submit a#0 to 1
        > submit b
        w0 < submit b#0 to 1
        > submit c
        > w0 returns b#0
        > w0 returns a#0
        > replicas 2:w0:local:9
        w0 < submit a#1 to 2
        w0 < submit b#1 to 2
        w0 < submit c#0 to 2
        """,
    "all that ran under a lost head goes on elsewhere": """
        > replicas 1:w0:pipe:2 2:w1:pipe:2
        > attach w0
        > attach w1
        > submit a
        w0 < submit a#0 to 1
        > submit b
        w1 < submit b#0 to 2
        > w0 emits a#0 0 17
        a gets 17 at 0
        > lose w0
        w1 < submit a#1 to 2 after [17]
        > submit c
        > attach w0
        w0 < submit c#0 to 1
        """,
    "a sequence on a replica that is no longer named runs on": """
        > replicas 1:w0:pipe:2
        > attach w0
        > submit a
        w0 < submit a#0 to 1
        > replicas
        > submit b
        > w0 emits a#0 0 17
        a gets 17 at 0
        > w0 finishes a#0 stop
        a ends: stop
        """,
    "a head lost after the last token costs nothing": """
        > replicas 1:w0:pipe:2
        > attach w0
        > submit a 1
        w0 < submit a#0 to 1
        > submit b 9
        w0 < submit b#0 to 1
        > w0 emits a#0 0 17
        a gets 17 at 0
        > w0 emits b#0 0 2
        b gets 2 at 0
        > lose w0
        a ends: length
        b ends: stop
        """,
    "a cancelled sequence makes room and is heard of no more": """
        > replicas 1:w0:pipe:1
        > attach w0
        > submit a
        w0 < submit a#0 to 1
        > submit b
        > cancel a
        w0 < cancel a
        w0 < submit b#0 to 1
        > w0 emits a#0 0 17
        > w0 finishes a#0 cancelled
        > cancel b
        w0 < cancel b
        > cancel b
        """,
    "a cancelled sequence that waits was never sent": """
        > submit a
        > cancel a
        > replicas 1:w0:pipe:1
        > attach w0
        """,
    "a rejected sequence fails with the reason": """
        > replicas 1:w0:pipe:1
        > attach w0
        > submit a
        w0 < submit a#0 to 1
        > w0 rejects a#0
        a fails: RequestError too long
        """,
    "a request that was cut off elsewhere goes on after its tokens": """
        > replicas 1:w0:pipe:2
        > attach w0
        > submit a 3 17 18
        w0 < submit a#0 to 1 after [17, 18]
        > w0 emits a#0 2 19
        a gets 19 at 2
        > submit b 2 17 18
        b ends: length
        > submit c 9 17 2
        c ends: stop
        """,
    "what opens and closes is told as changes": """
        > replicas 1:w0:pipe:1
        > attach w0
        > submit a
        w0 < submit a#0 to 1
        > submit b
        > submit c
        > opens 2:w0:pipe:1
        w0 < submit b#0 to 2
        > closes 2
        > w0 finishes b#0 stop
        b ends: stop
        > w0 finishes a#0 stop
        a ends: stop
        w0 < submit c#0 to 1
        """,
    "without any replica for long, what waits fails": """
        > at 100
        > replicas 1:w0:pipe:1
        > attach w0
        > submit a
        w0 < submit a#0 to 1
        > submit b
        > at 300
        > lose w0
        > at 359
        > at 360
        a fails: UnavailableError no worker could serve for 60 s: \
see ModelStatus, then try again or add workers
        b fails: UnavailableError no worker could serve for 60 s: \
see ModelStatus, then try again or add workers
        """,
    "time in which nobody waited for a worker does not count": """
        > at 1000
        > submit a
        > at 1001
        > at 1059
        > submit b
        > at 1060
        a fails: UnavailableError no worker could serve for 60 s: \
see ModelStatus, then try again or add workers
        b fails: UnavailableError no worker could serve for 60 s: \
see ModelStatus, then try again or add workers
        > at 2000
        > submit c
        > at 2010
        > replicas 1:w0:local:1
        > attach w0
        w0 < submit c#0 to 1
        """,
}


@pytest.mark.parametrize("claim", SCRIPTS)
def test_router_script(claim):
    expected = inspect.cleandoc(SCRIPTS[claim])
    assert Script().play(expected) == expected


def test_the_queue_is_bounded():
    script = Script(max_queued=2)
    said = script.play(
        """
        > submit a
        > submit b
        > submit c
        """
    )
    assert said.endswith(
        "refused: 2 requests are waiting, as many as may: "
        "try again later, or add workers"
    )
    assert script.router.num_live == 2


def test_a_sequence_that_every_replica_gives_back_fails_in_the_end():
    script = Script()
    script.play("> replicas 1:w0:pipe:1\n> attach w0\n> submit a")
    for attempt in range(FRUITLESS_MAX):
        assert script.play(f"> w0 returns a#{attempt}").count("\n") == 0
        script.play(f"> at {attempt + 1}")
    assert "a fails: Unavailable" in script.play(f"> w0 returns a#{FRUITLESS_MAX}")
    assert script.router.num_live == 0


def test_nothing_is_outstanding_when_all_is_done():
    script = Script()
    script.play(SCRIPTS["all that ran under a lost head goes on elsewhere"])
    script.play("> w1 finishes a#1 stop\n> w1 finishes b#0 stop\n> cancel c")
    router = script.router
    assert (router.num_live, router.num_queued) == (0, 0)
    assert [router.outstanding(PipelineId(p)) for p in (1, 2)] == [0, 0]
    assert router.num_handed_over == 1


def test_hand_overs_that_moved_kv_are_counted():
    script = Script()
    script.play(
        SCRIPTS[
            "where a replica left the KV is told to the next one, and to no later one"
        ]
    )
    router = script.router
    assert (router.num_handed_over, router.num_kv_moved) == (2, 1)
    assert router.kv_moved_bytes == 1000


def test_the_load_counts_what_waits_runs_and_came():
    script = Script()
    script.play(SCRIPTS["a rejected sequence fails with the reason"])
    script.play("> submit b\n> submit c\n> w0 emits b#0 0 17")
    load = script.router.load
    assert (load.num_waiting, load.num_running) == (1, 1)
    assert (load.num_arrived, load.num_finished) == (3, 1)
    assert (load.num_tokens, load.prompt_tokens) == (1, 3)
