"""How chunks come to where the model reads them: agreed by arena and transport."""

import os

from jscale.core.errors import TransportError
from jscale.store.arena import Arena
from jscale.store.device_memory import DeviceMemoryError
from jscale.transport.base import Transport

HOST = "host"
"""Blocks are in host memory, where every transport writes."""

STAGED = "staged"
"""Chunks pass through pinned host memory; why is said after a colon."""

COPIED = "copied"
"""The transport's device reaches none of our memory, and it copies each chunk."""


def register(arena: Arena, transport: Transport) -> str:
    """Tells the transport of the arena's memory; the path that chunks take.

    `host`; `dmabuf` or `peermem`, where an RDMA device writes into the accelerator's
    memory; `staged: ` and the reason why it cannot; or `copied: ` and why not even host
    memory could be registered: locked memory is limited, say.
    """
    try:
        transport.register(arena.host_memory)
    except TransportError as error:
        return f"{COPIED}: {error}"
    arena.stay_in_place()
    region = arena.device_memory
    if region is None:
        return HOST
    exported: list[int] = []

    def export() -> int:
        try:
            exported.append(arena.export_dmabuf())
        except DeviceMemoryError as error:
            raise TransportError(str(error)) from error
        return exported[0]

    try:
        path = transport.register_device(region, export)
    except TransportError as error:
        return f"{STAGED}: {error}"
    finally:
        for descriptor in exported:
            os.close(descriptor)
    arena.reach_directly()
    return path
