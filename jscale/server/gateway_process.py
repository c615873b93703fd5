"""The gateway's process: the endpoint, health, reflection, and how it ends."""

import asyncio
import secrets
import signal
import time
from pathlib import Path

from absl import logging
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH_NAME
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from jscale.cluster import rpc
from jscale.cluster.ready_file import write_ready_file
from jscale.proto.v1 import jscale_pb2 as pb
from jscale.proto.v1 import jscale_pb2_grpc as pb_grpc
from jscale.server.gateway import Gateway
from jscale.server.gateway_config import GatewayConfig
from jscale.server.model_facts import ModelFacts, load_model_facts
from jscale.server.servicer import Servicer

HEALTH_S = 0.05
"""How late health may be."""

SERVICE_NAME = str(pb.DESCRIPTOR.services_by_name["Jscale"].full_name)


def run_gateway(config: GatewayConfig) -> None:
    """Serves until SIGTERM or SIGINT, then lets what runs finish.

    Raises:
      CheckpointError: the model cannot be read.
      UnavailableError: the address cannot be listened on, or the manager refuses.
    """
    facts = load_model_facts(
        config.model_path, cache_dir=config.cache_dir, max_context=config.max_context
    )
    asyncio.run(_serve_process(config, facts))


async def _serve_process(config: GatewayConfig, facts: ModelFacts) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(config, facts, stop)


async def serve(config: GatewayConfig, facts: ModelFacts, stop: asyncio.Event) -> None:
    """Listens until `stop`, then drains.

    Raises:
      UnavailableError: the address cannot be listened on, or the manager refuses.
    """
    name = f"g{secrets.token_hex(4)}"
    gateway = Gateway(config, facts, name=name, now_ns=time.monotonic_ns)
    draining = asyncio.Event()
    server = aio.server(options=rpc.OPTIONS)
    health = health_aio.HealthServicer()
    add_servicer = pb_grpc.add_JscaleServicer_to_server
    add_servicer(Servicer(gateway, draining), server)  # type: ignore[no-untyped-call]
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    names = (SERVICE_NAME, HEALTH_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    address = await rpc.listen(server, config.listen_address)
    await _tell_health(health, is_serving=False)
    await server.start()
    logging.info("gateway listens address=%s gateway=%s", address, name)
    if config.ready_file:
        write_ready_file(Path(config.ready_file), address)
    running = asyncio.create_task(gateway.run())
    watching = asyncio.create_task(_watch_health(gateway, health))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            draining.set()
            await gateway.drain(config.drain_timeout_s)
    finally:
        for task in (watching, stopping, running):
            task.cancel()
        await server.stop(grace=1)
        ended = await asyncio.gather(
            running, watching, stopping, return_exceptions=True
        )
    if isinstance(ended[0], Exception):
        raise ended[0]


async def _watch_health(gateway: Gateway, health: health_aio.HealthServicer) -> None:
    """Says SERVING for as long as some replica can be sent to."""
    said = False
    while True:
        if gateway.is_serving != said:
            said = gateway.is_serving
            logging.info("health %s", "SERVING" if said else "NOT_SERVING")
            await _tell_health(health, is_serving=said)
        await asyncio.sleep(HEALTH_S)


async def _tell_health(health: health_aio.HealthServicer, *, is_serving: bool) -> None:
    status = health_pb2.HealthCheckResponse.ServingStatus
    value = status.SERVING if is_serving else status.NOT_SERVING
    for service in ("", SERVICE_NAME):
        await health.set(service, value)
