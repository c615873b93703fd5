"""KV pages that a pipeline has on a worker; one that continues it has the same."""

from jscale.engine.pages import PagePool, page_map


class Lease:
    """Pages of a worker's pool, in use by `num_users` pipelines. Owned by the host."""

    def __init__(self, pool: PagePool, num_pages: int) -> None:
        """Leases pages that nobody uses yet.

        Raises:
          OverloadedError: too few are free.
        """
        self.pages = pool.lease(num_pages)
        self.page_map = page_map(self.pages)
        self.num_users = 0
