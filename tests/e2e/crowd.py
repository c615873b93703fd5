"""Clients that stream at the same time, and what became of each."""

import threading

import jscale


class Crowd:
    """So many clients, each on a thread, until `join`."""

    def __init__(
        self, cluster: jscale.LocalCluster, num_clients: int, max_tokens: int
    ) -> None:
        self.results: list[list[int]] = []
        self.errors: list[Exception] = []
        self._cluster = cluster
        self._max_tokens = max_tokens
        self._threads = [
            threading.Thread(target=self._stream) for _ in range(num_clients)
        ]
        for thread in self._threads:
            thread.start()

    def join(self) -> list[list[int]]:
        """The tokens of every client.

        Raises the first error that one of them met.
        """
        for thread in self._threads:
            thread.join()
        if self.errors:
            raise self.errors[0]
        return self.results

    def _stream(self) -> None:
        try:
            stream = self._cluster.generate([1], max_tokens=self._max_tokens)
            self.results.append([token.id for token in stream])
        except Exception as error:  # noqa: BLE001 - told by join
            self.errors.append(error)
