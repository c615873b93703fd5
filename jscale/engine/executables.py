"""Executables of a model: compiled from shapes alone, or taken from a bundle."""

import threading
from collections.abc import Callable, Iterable
from typing import Any

import jax
from jax.experimental import serialize_executable

from jscale.engine.bundle import ExecutableBundle, pack_bundle
from jscale.engine.fingerprint import (
    ExecutableMismatchError,
    Fingerprint,
    check_fingerprint,
    fingerprint_of,
)
from jscale.engine.kv_copy import (
    DONATED_ARGUMENTS as DONATED_BY_KV_COPY,
)
from jscale.engine.kv_copy import (
    KvCopySpec,
    kv_copy_arguments,
    kv_copy_step,
)
from jscale.engine.program import DONATED_ARGUMENTS, ExecutableSpec, ModelProgram

Executable = Callable[..., Any]
AnySpec = ExecutableSpec | KvCopySpec


class ExecutableSet:
    """The executables that are ready in this process.

    Mutable; one thread fills it while any may look: an entry is never replaced. No
    weight is needed to fill it.
    """

    def __init__(self, program: ModelProgram) -> None:
        """An empty set."""
        self.program = program
        self.fingerprint: Fingerprint = fingerprint_of(program)
        self._ready: dict[AnySpec, Any] = {}
        self._serialized: dict[AnySpec, bytes] = {}
        self._filling = threading.Lock()

    def find(self, spec: AnySpec) -> Executable | None:
        """The executable if it is ready."""
        return self._ready.get(spec)

    def holds(self, specs: Iterable[AnySpec]) -> bool:
        """Whether all of these are ready."""
        return all(spec in self._ready for spec in specs)

    def compile(self, specs: Iterable[AnySpec]) -> None:
        """Compiles those that are not ready. About half a second each."""
        with self._filling:
            for spec in specs:
                if spec in self._ready:
                    continue
                compiled = compile_step(self.program, spec)
                # Now, as XLA cannot serialise one that has sorted (top_k, top_p).
                self._serialized[spec] = serialize_executable.serialize(compiled)[0]
                self._ready[spec] = compiled

    def load(self, bundle: ExecutableBundle, specs: Iterable[AnySpec]) -> None:
        """Loads those that are not ready. Tens of milliseconds each.

        Raises:
          ExecutableMismatchError: they were compiled for something else, or the bundle
            lacks one, or JAX cannot load it; those loaded before stay ready.
        """
        check_fingerprint(found=bundle.fingerprint, wanted=self.fingerprint)
        with self._filling:
            for spec in specs:
                if spec in self._ready:
                    continue
                serialized = bundle.serialized(spec.name)
                if serialized is None:
                    raise ExecutableMismatchError(
                        f"executables: {spec.name} is not among "
                        f"{sorted(bundle.entries)}; compiling it here"
                    )
                self._ready[spec] = _load_step(self.program, spec, serialized)
                self._serialized[spec] = serialized

    def to_bundle(self) -> bytes:
        """All that is ready, for another process."""
        serialized = {spec.name: data for spec, data in self._serialized.copy().items()}
        return pack_bundle(self.fingerprint, serialized)


def compile_step(program: ModelProgram, spec: AnySpec) -> jax.stages.Compiled:
    """Compiles one executable from shapes alone."""
    if isinstance(spec, KvCopySpec):
        donated = DONATED_BY_KV_COPY if spec.is_write else ()
        copy = jax.jit(kv_copy_step(spec), donate_argnums=donated)
        return copy.lower(*kv_copy_arguments(program, spec)).compile()
    step = jax.jit(program.step(spec), donate_argnums=DONATED_ARGUMENTS)
    return step.lower(*program.arguments(spec).flat()).compile()


def _load_step(
    program: ModelProgram, spec: AnySpec, serialized: bytes
) -> jax.stages.Compiled:
    """The executable that another process compiled and serialised."""
    in_tree, out_tree = _trees(program, spec)
    try:
        load = serialize_executable.deserialize_and_load
        loaded: jax.stages.Compiled = load(serialized, in_tree, out_tree)
    except Exception as error:  # JAX and pickle raise whatever they like.
        raise ExecutableMismatchError(
            f"executables: {spec.name} cannot be loaded ({error}); compiling it here"
        ) from error
    return loaded


def _trees(program: ModelProgram, spec: AnySpec) -> tuple[Any, Any]:
    """How an executable's arguments and what it gives are nested."""
    if isinstance(spec, KvCopySpec):
        given = kv_copy_arguments(program, spec)
        made: Any = (0, 0) if spec.is_write else 0
        return jax.tree.structure((given, {})), jax.tree.structure(made)
    arguments = program.arguments(spec)
    pools = arguments.k_pools
    made = (0, 0) if spec.kinds[-1].has_head else 0
    in_tree = jax.tree.structure((arguments.flat(), {}))
    return in_tree, jax.tree.structure((made, pools, pools))
