"""Models as a worker holds them: blocks in an arena, executables compiled."""

import dataclasses
import functools
import itertools

import pytest

import jscale
from jscale.checkpoint.convert import convert
from jscale.checkpoint.random_model import write_random_model
from jscale.core.ids import SequenceId
from jscale.engine.config import EngineConfig
from jscale.engine.executables import ExecutableSet
from jscale.engine.executor import StageExecutor
from jscale.engine.kv_copy import kv_copy_specs
from jscale.engine.pages import PagePool, page_map
from jscale.engine.program import ModelProgram
from jscale.engine.request import Request, SamplingParams
from jscale.engine.scheduler import Scheduler, TokenSampled
from jscale.engine.sequence import Sequence
from jscale.models.testing import TINY_CONFIG
from jscale.store.block_store import BlockStore

BUNDLED = "bundled"
RANDOM = "random"


@dataclasses.dataclass(frozen=True)
class Rig:
    """A model in an arena, and the executables that run it."""

    program: ModelProgram
    store: BlockStore
    executables: ExecutableSet

    @property
    def num_blocks(self) -> int:
        return self.program.partition.num_blocks

    def executor(self, executables: ExecutableSet | None = None) -> StageExecutor:
        executor = StageExecutor(executables or self.executables)
        for block in range(self.num_blocks):
            executor.set_block(block, self.store.publish(block))
        return executor

    def walking(self) -> ExecutableSet:
        """The executables without the fused ones: every stage is a walk."""
        walking = ExecutableSet(self.program)
        for spec in self.program.stage_specs():
            walking._ready[spec] = self.executables.find(spec)
        return walking


class Replica:
    """A scheduler and the stages below it, as one process runs them all."""

    def __init__(self, rig, cut=None, *, num_pages=32, max_in_flight=1, executor=None):
        """`cut` is how many blocks each stage has; by default one stage has all."""
        self.cut = cut or (rig.num_blocks,)
        self.scheduler = Scheduler(
            rig.program.engine, num_pages=num_pages, max_in_flight=max_in_flight
        )
        self.executor = executor or rig.executor()
        pool = PagePool(rig.program.engine.num_pages)
        pool.lease(3)  # So that virtual and physical pages differ.
        self.page_map = page_map(pool.lease(num_pages))
        self.tokens = {}

    def add(self, name, prompt_ids, generated=(), **sampling):
        request = Request(
            SequenceId(name), tuple(prompt_ids), SamplingParams(**sampling)
        )
        self.tokens[name] = []
        self.scheduler.add(Sequence(request, generated))

    def step(self):
        """Runs one batch; False if there was none."""
        scheduled = self.scheduler.next_batch()
        if scheduled is None:
            return False
        result, first = None, 0
        for count in self.cut:
            result = self.executor.run(
                first, count, scheduled.batch, self.page_map, result
            )
            first += count
        for event in self.scheduler.complete(
            scheduled.id, result.tokens.tolist(), result.logprobs.tolist()
        ):
            if isinstance(event, TokenSampled):
                self.tokens[event.sequence].append((event.token, event.logprob))
        return True

    def run(self):
        """Runs everything to its end: tokens and logprobs of each sequence."""
        while self.step():
            pass
        return self.tokens


@pytest.fixture(scope="session")
def rig(tmp_path_factory):
    """Makes rigs; the same arguments give the same one."""

    @functools.cache
    def build(model, num_blocks, dtype="float32", **settings) -> Rig:
        directory = tmp_path_factory.mktemp("store")
        if model == BUNDLED:
            manifest = convert(jscale.BUNDLED_MODEL, directory, num_blocks=num_blocks)
        else:
            manifest = write_random_model(
                directory, TINY_CONFIG, num_blocks=num_blocks, dtype=dtype
            )
        config = EngineConfig(
            **{
                "max_context": manifest.config["max_context"],
                "page_tokens": 16,
                "num_pages": 80,
                "row_buckets": (16,),
                **settings,
            }
        )
        store = BlockStore(manifest)
        for block in range(manifest.num_blocks):
            store.load(block, directory)
        program = ModelProgram.of(manifest, config)
        executables = ExecutableSet(program)
        executables.compile((*program.stage_specs(), *program.fused_specs()))
        executables.compile(kv_copy_specs(program))
        return Rig(program, store, executables)

    return build


@pytest.fixture(scope="session")
def bundled(rig) -> Rig:
    """The bundled model in three blocks, with two buckets."""
    return rig(BUNDLED, 3, row_buckets=(16, 128))


@pytest.fixture
def replica():
    """Makes replicas of a rig."""
    return Replica


@pytest.fixture(scope="session")
def cuts():
    """Every way to give blocks to stages."""

    def of(num_blocks):
        for num_stages in range(1, num_blocks + 1):
            for sizes in itertools.product(range(1, num_blocks + 1), repeat=num_stages):
                if sum(sizes) == num_blocks:
                    yield sizes

    return of
