"""How a worker runs sequences; every worker of a model has the same."""

import msgspec

from jscale.core.errors import ConfigError

TILE_ROWS = 16
"""Rows that one turn of an executable computes (`jscale.models.block`)."""

COMPUTE_DTYPES = ("float32", "bfloat16")
"""Types that activations and KV pages may have; weights are cast layer by layer."""

MOVES_KV = ("auto", "always", "never")
"""When the KV of a sequence that is handed over is moved, not computed again."""


class EngineConfig(msgspec.Struct, frozen=True):
    """Sizes that executables are compiled for, and bounds of the queues.

    A step computes rows, a row being one token of one sequence. Rows are walked in
    tiles of `TILE_ROWS` by the same machine code whatever else is in the step, so that
    neither batch, bucket nor cut moves a bit of a row. A bucket is only the capacity of
    a step's arrays: `row_buckets` lists them, the last is the most rows of a step.

    `num_pages` counts the pages of `page_tokens` tokens that a worker has for each
    block, besides page 0, which takes what padding rows write. `max_sequences` is how
    many sequences one step decodes; `max_waiting` bounds the queue of a replica.
    `moves_kv`: a sequence that is handed over takes its KV along where that is sooner
    than to compute it again (`auto`), wherever it is still there, or never.

    Attention takes a turn for each page, and on CPU a turn costs as much for 64 tokens
    as for 16: the bundled model after 200 tokens takes 0.9 ms a step with 64, 1.6 ms
    with 16. The price is half a page for each sequence, on average.
    """

    row_buckets: tuple[int, ...] = (16, 128)
    page_tokens: int = 64
    num_pages: int = 256
    max_context: int = 512
    max_sequences: int = 16
    max_waiting: int = 1024
    compute_dtype: str = "float32"
    moves_kv: str = "auto"

    def __post_init__(self) -> None:
        for name in ("page_tokens", "max_context", "max_sequences"):
            _check(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        buckets = self.row_buckets
        _check(
            bool(buckets)
            and list(buckets) == sorted(set(buckets))
            and all(bucket > 0 and bucket % TILE_ROWS == 0 for bucket in buckets),
            "row_buckets",
            buckets,
            f"increasing multiples of {TILE_ROWS}",
        )
        _check(
            self.max_sequences <= buckets[-1],
            "max_sequences",
            self.max_sequences,
            f"at most the largest row bucket, {buckets[-1]}",
        )
        _check(
            self.num_pages >= self.pages_per_sequence,
            "num_pages",
            self.num_pages,
            f"at least {self.pages_per_sequence}, one sequence of max_context="
            f"{self.max_context} tokens",
        )
        _check(self.max_waiting >= 0, "max_waiting", self.max_waiting, "0 or more")
        _check(
            self.compute_dtype in COMPUTE_DTYPES,
            "compute_dtype",
            self.compute_dtype,
            f"one of {', '.join(COMPUTE_DTYPES)}",
        )
        _check(
            self.moves_kv in MOVES_KV,
            "moves_kv",
            self.moves_kv,
            f"one of {', '.join(MOVES_KV)}",
        )

    @property
    def pages_per_sequence(self) -> int:
        """Pages of the longest sequence: the width of a page table."""
        return self.pages_for(self.max_context)

    def pages_for(self, num_tokens: int) -> int:
        """Pages that the KV of so many tokens takes."""
        return -(-num_tokens // self.page_tokens)

    def bucket_for(self, num_rows: int) -> int:
        """The smallest bucket that holds so many rows."""
        for bucket in self.row_buckets:
            if num_rows <= bucket:
                return bucket
        raise AssertionError(f"{num_rows} rows, buckets {self.row_buckets}")


def _check(holds: bool, name: str, value: object, wanted: str) -> None:
    if not holds:
        raise ConfigError(f"engine setting {name}={value}: it must be {wanted}")
