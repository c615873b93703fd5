"""The thread that hears of everything: completions, notes on sockets, device events."""

import contextlib
import os
import select
import threading
import time
from collections.abc import Sequence

from absl import logging

from jscale.core.errors import TransportError
from jscale.transport.rdma_link import RdmaLink
from jscale.transport.rdma_rail import Rail

ROUNDS_MAX = 16
"""Polls of a busy rail before the others, and the sockets, have their turn."""

ENDING_POLL_S = 0.005
"""How often it is looked whether the last of a connection that ended has come."""

_QUEUE_PAIR_EVENTS = {1: "fatal error", 2: "invalid request", 3: "access error"}
_RAIL_EVENTS = {
    0: "the completion queue failed",
    8: "the device failed",
    14: "the receive queue failed",
}
_PORT_EVENTS = {9: "is up", 10: "is down"}


class Poller:
    """Tells links what concerns them; never waits for anything else than news.

    It sleeps on the completion channels and sockets when there is none. Thread-safe;
    owns a thread.
    """

    def __init__(self, rails: Sequence[Rail]) -> None:
        self._rails = rails
        self._lock = threading.Lock()
        self._links: dict[tuple[int, int], RdmaLink] = {}
        self._links_by_fd: dict[int, RdmaLink] = {}
        self._ending: dict[RdmaLink, None] = {}
        self._is_closing = self._has_failed = False
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK)
        self._epoll = select.epoll()
        self._rails_by_fd = {rail.fd: rail for rail in rails}
        self._rails_by_events_fd = {rail.events_fd: rail for rail in rails}
        for fd in (self._wake_fd, *self._rails_by_fd, *self._rails_by_events_fd):
            self._epoll.register(fd, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="rdma-poll", daemon=True)
        self._thread.start()

    def attach(self, link: RdmaLink) -> None:
        """Tells the link of completions, from now on.

        Raises:
          TransportError: the thread has failed.
        """
        with self._lock:
            if self._has_failed:
                raise TransportError("RDMA has failed in this process: see the log")
            for queue_pair in link.queue_pairs:
                self._links[queue_pair.rail.index, queue_pair.number] = link

    def listen(self, link: RdmaLink) -> None:
        """Tells it of notes, too, from those on that nobody has read yet."""
        fd = link.channel.fileno()
        self._links_by_fd[fd] = link
        if self._has_ended(link):
            self._ending[link] = None
            os.eventfd_write(self._wake_fd, 1)
        else:
            self._epoll.register(fd, select.EPOLLIN | select.EPOLLRDHUP)

    def detach(self, link: RdmaLink) -> None:
        """Forgets the link, whose queue pairs are stopped and whose socket is open."""
        fd = link.channel.fileno()
        with self._lock:
            for queue_pair in link.queue_pairs:
                del self._links[queue_pair.rail.index, queue_pair.number]
            self._links_by_fd.pop(fd, None)
            with contextlib.suppress(OSError):  # It was not, or no more, listened to.
                self._epoll.unregister(fd)
        self._ending.pop(link, None)

    def close(self) -> None:
        """Stops; no link is attached any more."""
        self._is_closing = True
        os.eventfd_write(self._wake_fd, 1)
        self._thread.join()
        self._epoll.close()
        os.close(self._wake_fd)

    def _run(self) -> None:
        try:
            self._poll()
        finally:
            if not self._is_closing:
                with self._lock:
                    self._has_failed = True
                for link in self._all_links():
                    link.fail("polling for completions failed: see the log")

    def _poll(self) -> None:
        while not self._is_closing:
            drained = [self._drain(rail) for rail in self._rails]
            is_drained = all(drained)
            if is_drained:
                self._settle()
            timeout_s = ENDING_POLL_S if self._ending else None
            for fd, _ in self._epoll.poll(timeout_s if is_drained else 0):
                self._look(fd)

    def _drain(self, rail: Rail) -> bool:
        """Hands completions on; whether there are no more for now."""
        for _ in range(ROUNDS_MAX):
            completions = rail.poll()
            if not completions:
                return True
            for completion in completions:
                link = self._links.get((rail.index, completion.qp_num))
                if link is None:
                    if completion.is_received:
                        rail.repost(completion.buffer)
                    continue
                try:
                    link.completed(rail, completion)
                except TransportError as error:
                    link.fail(str(error))
                except Exception as error:  # noqa: BLE001 - ends that link, no other
                    logging.exception("rdma port=%s", rail.port.name)
                    link.fail(f"{type(error).__name__}: {error}; see the log")
        return False

    def _look(self, fd: int) -> None:
        if rail := self._rails_by_fd.get(fd):
            rail.rearm()
        elif rail := self._rails_by_events_fd.get(fd):
            self._hear(rail)
        elif fd == self._wake_fd:
            os.eventfd_read(fd)
        elif (link := self._links_by_fd.get(fd)) and self._has_ended(link):
            self._ending[link] = None
            with self._lock, contextlib.suppress(OSError):
                if self._links_by_fd.get(fd) is link:  # Else it may be another's now.
                    self._epoll.unregister(fd)

    def _has_ended(self, link: RdmaLink) -> bool:
        """Reads its notes; whether there will be no more."""
        try:
            return link.read_notes()
        except TransportError as error:
            link.fail(str(error))
            return True

    def _settle(self) -> None:
        """Ends links whose peer has ended and of which nothing more will come."""
        now_s = time.monotonic()
        for link in list(self._ending):
            if link.settle(now_s):
                self._ending.pop(link, None)

    def _hear(self, rail: Rail) -> None:
        """An event of the device: a queue pair has failed, a port has gone or come."""
        kind = rail.take_event()
        if kind in _PORT_EVENTS:
            logging.warning("RDMA port %s %s", rail.port.name, _PORT_EVENTS[kind])
        if kind in _RAIL_EVENTS or kind in _QUEUE_PAIR_EVENTS:
            what = (_RAIL_EVENTS | _QUEUE_PAIR_EVENTS)[kind]
            for link in self._all_links():
                link.check(rail, what, is_device=kind in _RAIL_EVENTS)

    def _all_links(self) -> set[RdmaLink]:
        with self._lock:
            return set(self._links.values())
