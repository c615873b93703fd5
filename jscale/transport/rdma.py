"""`rdma://host:port`: chunks by RDMA straight into memory, at a TCP port to meet."""

import socket
import threading
from collections.abc import Callable

from absl import logging

from jscale.core.errors import ConfigError, TransportError
from jscale.core.ids import WorkerId
from jscale.core.spans import DeviceSpan
from jscale.transport import tcp
from jscale.transport.base import (
    Connection,
    Handler,
    Listener,
    Transport,
    TransportConfig,
)
from jscale.transport.meeting import call, meet
from jscale.transport.rdma_connection import RdmaConnection
from jscale.transport.rdma_devices import choose_ports, list_ports
from jscale.transport.rdma_equipment import Equipment
from jscale.transport.rdma_link import RdmaLink
from jscale.transport.schemes import scheme_of
from jscale.transport.sockets import parse_address, tune
from jscale.transport.tcp_listener import TcpListener

SCHEME = "rdma"


class RdmaTransport(Transport):
    """Listeners and connections over RDMA, and over TCP with those who have none.

    Devices are opened when it is first known by which address others see us.
    Thread-safe.
    """

    def __init__(self, config: TransportConfig) -> None:
        self._config = config
        self._tcp = tcp.TcpTransport(config)
        self._lock = threading.Lock()
        self._equipment: Equipment | None = None
        self._is_closed = False
        self._listeners: list[Listener] = []
        self._connections: set[Connection] = set()

    def register(self, memory: memoryview) -> None:
        """See `Transport.register`."""
        equipment = self._equip()
        equipment.tell(equipment.memory.add(memory))

    def register_device(self, region: DeviceSpan, dmabuf: Callable[[], int]) -> str:
        """See `Transport.register_device`."""
        equipment = self._equip()
        told, path = equipment.memory.add_device(region, dmabuf)
        equipment.tell(told)
        return path

    def listen(self, address: str, handler: Handler) -> Listener:
        """See `Transport.listen`."""
        host, _ = parse_address(address)
        self._equip(host)
        listener = TcpListener(
            address, lambda sock: self._welcome(sock, handler), scheme=SCHEME
        )
        with self._lock:
            self._listeners.append(listener)
        return listener

    def connect(self, address: str, handler: Handler) -> Connection:
        """See `Transport.connect`; a `tcp://` address is connected to by TCP."""
        if scheme_of(address) != SCHEME:
            return self._tcp.connect(address, handler)
        equipment = self._equip()
        sock, peer = call(address, self._config, scheme=SCHEME)
        try:
            link = equipment.call(sock)
        except TransportError as error:
            sock.close()
            raise TransportError(f"cannot connect to {address}: {error}") from error
        return self._open(sock, equipment, link, peer, handler, is_accepted=False)

    def close(self) -> None:
        """See `Transport.close`."""
        with self._lock:
            self._is_closed = True
            listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener.close()
        self._tcp.close()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            connection.close()
        with self._lock:
            equipment, self._equipment = self._equipment, None
        if equipment is not None:
            equipment.close()

    def _equip(self, host: str = "") -> Equipment:
        """The devices, opened now if they were not.

        Raises:
          TransportError: they cannot be used as the options want it, or not any more.
        """
        with self._lock:
            if self._is_closed:
                raise TransportError("this transport is closed")
            if self._equipment is None:
                try:
                    ports = choose_ports(list_ports(), self._config.rdma, host=host)
                except ConfigError as error:
                    raise TransportError(str(error)) from error
                self._equipment = Equipment(ports, self._config)
                logging.info("rdma ports=%s", self._equipment.names)
            return self._equipment

    def _welcome(self, sock: socket.socket, handler: Handler) -> None:
        try:
            caller = meet(sock, self._config, schemes=(SCHEME, tcp.SCHEME))
            if caller.scheme == tcp.SCHEME:
                self._tcp.adopt(sock, caller.worker, handler, is_accepted=True)
                return
            equipment = self._equip()
            link = equipment.answer(sock)
        except TransportError as error:
            logging.warning("refused a caller: %s", error)
            sock.close()
            return
        try:
            self._open(sock, equipment, link, caller.worker, handler, is_accepted=True)
        except TransportError as error:
            logging.info("refused %s: %s", caller.worker, error)

    def _open(
        self,
        sock: socket.socket,
        equipment: Equipment,
        link: RdmaLink,
        peer: WorkerId,
        handler: Handler,
        *,
        is_accepted: bool,
    ) -> RdmaConnection:
        tune(sock, self._config.timeout_s)
        connection = RdmaConnection(
            link,
            equipment.memory,
            peer,
            handler,
            self._config,
            is_accepted=is_accepted,
            on_stopped=equipment.take_back,
            on_ended=self._forget,
        )
        with self._lock:
            is_closed = self._is_closed
            if not is_closed:
                self._connections.add(connection)
                equipment.begin(link)
                connection.start()
        if is_closed:
            equipment.give_up(link)
            raise TransportError("this transport is closed")
        return connection

    def _forget(self, connection: Connection) -> None:
        with self._lock:
            self._connections.discard(connection)
