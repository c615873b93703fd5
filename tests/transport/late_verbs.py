"""The simulated devices, but late: threads of their own carry requests out."""

import collections
import contextlib
import random
import threading
import time
import types

from tests.transport import fake_verbs

PAUSE_S_MAX = 0.002


def install(monkeypatch, seed=0):
    """Has queue pairs take requests, and carry them out when they come to it."""
    rng = random.Random(seed)
    post_send, close = fake_verbs.QP.post_send, fake_verbs.QP.close
    init = fake_verbs.QP.__init__

    def begin(qp, *arguments):
        init(qp, *arguments)
        qp.later, qp.more, qp.is_ending = (
            collections.deque(),
            threading.Condition(),
            False,
        )
        qp.thread = threading.Thread(target=carry_out, args=(qp,), name="late-verbs")
        qp.thread.start()

    def carry_out(qp):
        while True:
            with qp.more:
                qp.more.wait_for(lambda: qp.later or qp.is_ending)
                if not qp.later:
                    return
                request = qp.later.popleft()
            if rng.random() < 0.3:
                time.sleep(rng.random() * PAUSE_S_MAX)
            with contextlib.suppress(fake_verbs.PyverbsError):  # Closed meanwhile.
                post_send(qp, request)

    def take(qp, request):
        if not qp.is_open or qp.state not in (fake_verbs.RTS, fake_verbs.ERR):
            raise fake_verbs.PyverbsError("Failed to post send")
        with qp.more:
            qp.later.append(types.SimpleNamespace(**vars(request)))
            qp.more.notify()

    def end(qp):
        with qp.more:
            qp.is_ending = True
            qp.more.notify()
        qp.thread.join()
        close(qp)

    for name, function in (
        ("__init__", begin),
        ("post_send", take),
        ("close", end),
    ):
        monkeypatch.setattr(fake_verbs.QP, name, function)
