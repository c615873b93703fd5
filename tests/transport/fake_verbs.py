"""pyverbs on a device that is not there: requests are carried out as they are posted.

As much of it as `rdma://` uses, with the rules that real devices hold us to: access by
key and bounds only, a receive buffer for what consumes one, order, states, capacities,
flushed requests. `Fabric` says what goes wrong. Real devices are for `tests/rdma`.
"""

import collections
import ctypes
import errno
import importlib
import itertools
import mmap
import os
import sys
import threading
import types

from jscale.transport import registry
from jscale.transport.rdma_devices import ETHERNET, ROCE_V2, Gid, RdmaPort

FD_NAME = "anon_inode:[eventfd]"
GID_TEXT = "0000:0000:0000:0000:0000:ffff:7f00:0001"
GIDS = (Gid(0, "::ffff:127.0.0.1", ROCE_V2),)
PORTS = tuple(
    RdmaPort(name, 1, "ACTIVE", ETHERNET, 100.0, GIDS, 0) for name in ("fake0", "fake1")
)
RESET, INIT, RTR, RTS, ERR = 0, 1, 2, 3, 6
SUCCESS, LOC_LEN, LOC_PROT, FLUSHED, REM_ACCESS, RETRY, RNR = 0, 1, 4, 5, 10, 12, 13
ACCESS_ERROR_EVENT = 3
RECV, RECV_WRITE = 128, 129
WRITE, WRITE_IMM, SEND_IMM, READ = 0, 1, 3, 4

enums = types.SimpleNamespace(
    IBV_ACCESS_LOCAL_WRITE=1,
    IBV_ACCESS_REMOTE_WRITE=2,
    IBV_ACCESS_REMOTE_READ=4,
    IBV_QPT_RC=2,
    IBV_QPS_ERR=ERR,
    IBV_QP_STATE=1,
    IBV_SEND_SIGNALED=2,
    IBV_WR_RDMA_WRITE=WRITE,
    IBV_WR_RDMA_WRITE_WITH_IMM=WRITE_IMM,
    IBV_WR_SEND_WITH_IMM=SEND_IMM,
    IBV_WR_RDMA_READ=READ,
    IBV_WC_RECV_RDMA_WITH_IMM=RECV_WRITE,
)


class PyverbsError(Exception):
    pass


class Fabric:
    """All devices, and what goes wrong between them."""

    def __init__(self):
        self.lock = threading.RLock()
        self.qps = {}
        self.regions = {}
        self.numbers = itertools.count(17)
        self.open = collections.Counter()
        self.max_cqe = 1 << 15
        self.on_post = lambda qp, request: None
        """May change a request on its way, or say a status with which it fails."""

    def find(self, key, address, size, access):
        """Where these bytes are for the processor; None: the key does not open them."""
        mr = self.regions.get(key)
        if mr is None or (mr.access & access) != access:
            return None
        is_within = mr.address <= address and address + size <= mr.address + mr.length
        return mr.memory + address - mr.address if is_within else None


class Closable:
    def __init__(self, fabric):
        self.fabric = fabric
        self.is_open = True
        fabric.open[type(self).__name__] += 1

    def close(self):
        if self.is_open:
            self.is_open = False
            self.fabric.open[type(self).__name__] -= 1


class Context(Closable):
    def __init__(self, name):
        super().__init__(_fabric)
        self.events = os.eventfd(0, os.EFD_SEMAPHORE)
        self.kinds, self.unacknowledged = collections.deque(), []

    def query_device(self):
        return types.SimpleNamespace(
            max_qp=1000,
            max_srq_wr=1 << 15,
            max_cqe=self.fabric.max_cqe,
            max_qp_rd_atom=16,
        )

    def query_port(self, number):
        return types.SimpleNamespace(lid=0, active_mtu=5)

    def query_gid(self, port, index):
        return GID_TEXT

    def get_async_event(self):
        os.eventfd_read(self.events)
        kind = self.kinds.popleft()
        self.unacknowledged.append(kind)
        return types.SimpleNamespace(event_type=kind, ack=self.unacknowledged.pop)

    def tell(self, kind):
        self.kinds.append(kind)
        os.eventfd_write(self.events, 1)

    def close(self):
        if self.is_open:
            os.close(self.events)
        super().close()


class PD(Closable):
    def __init__(self, context):
        super().__init__(context.fabric)
        self.context = context


class CompChannel(Closable):
    def __init__(self, context):
        super().__init__(context.fabric)
        self.fd = os.eventfd(0, os.EFD_SEMAPHORE)

    def get_cq_event(self, cq):
        os.eventfd_read(self.fd)

    def close(self):
        if self.is_open:
            os.close(self.fd)
        super().close()


class CQ(Closable):
    def __init__(self, context, entries, _, channel, vector):
        super().__init__(context.fabric)
        assert entries <= self.fabric.max_cqe
        self.entries = entries
        self.channel = channel
        self.completions = collections.deque()
        self.is_armed = False

    def push(self, **fields):
        assert len(self.completions) < self.entries, "the completion queue overruns"
        self.completions.append(types.SimpleNamespace(**fields))
        if self.is_armed:
            self.is_armed = False
            os.eventfd_write(self.channel.fd, 1)

    def poll(self, most):
        with self.fabric.lock:
            number = min(most, len(self.completions))
            return number, [self.completions.popleft() for _ in range(number)]

    def req_notify(self):
        with self.fabric.lock:
            self.is_armed = True

    def ack_events(self, number):
        pass


class MR(Closable):
    def __init__(self, pd, length, access, address=None):
        super().__init__(pd.fabric)
        assert address, "pyverbs takes memory of its own then"
        self.address, self.length, self.access = address, length, access
        self.memory = address
        self.lkey = self.rkey = next(self.fabric.numbers)
        self.fabric.regions[self.rkey] = self

    def close(self):
        self.fabric.regions.pop(self.rkey, None)
        super().close()


class DmaBufMR(MR):
    """Of a descriptor that can be mapped; its bytes are counted from 0 on."""

    def __init__(self, pd, length, access, fd, offset):
        if fd < 0:
            raise PyverbsError("Failed to register a dma-buf", errno.EBADF)
        self.mapping = mmap.mmap(fd, length)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.mapping))
        super().__init__(pd, length, access, address)
        self.address = offset


class SRQ(Closable):
    def __init__(self, pd, depth):
        super().__init__(pd.fabric)
        self.depth = depth
        self.requests = collections.deque()

    def post_recv(self, request):
        with self.fabric.lock:
            assert len(self.requests) < self.depth, "the receive queue overruns"
            self.requests.append(request)


class RecvWR:
    def __init__(self, wr_id, num_sge, sg):
        (entry,) = sg
        self.wr_id, self.local = wr_id, entry.local

    def close(self):
        pass


class SGE:
    def __init__(self, address, length, lkey):
        self.local = address, length, lkey

    def close(self):
        pass


class SendWR:
    def __init__(self, wr_id, opcode, num_sge, imm_data, sg, send_flags):
        (entry,) = sg
        self.wr_id, self.opcode, self.imm, self.local = (
            wr_id,
            opcode,
            imm_data,
            entry.local,
        )
        self.is_signalled = bool(send_flags & enums.IBV_SEND_SIGNALED)
        self.remote = None

    def set_wr_rdma(self, rkey, address):
        self.remote = rkey, address

    def close(self):
        pass


class QPAttr:
    def __init__(self, qp_state=INIT, port_num=1):
        self.qp_state, self.port_num = qp_state, port_num


class QP(Closable):
    def __init__(self, pd, attributes):
        super().__init__(pd.fabric)
        self.cq, self.srq = attributes["scq"], attributes["srq"]
        self.depth = attributes["cap"]["max_send_wr"]
        self.qp_num = next(self.fabric.numbers)
        self.state = RESET
        self.peer = None
        self.context = pd.context
        self.silent = 0
        self.fabric.qps[self.qp_num] = self

    def to_init(self, attributes):
        self.state = INIT

    def to_rts(self, attributes):
        assert self.state == INIT
        assert attributes.max_rd_atomic > 0
        assert attributes.max_dest_rd_atomic > 0
        self.peer, self.state = attributes.dest_qp_num, RTS

    def modify(self, attributes, mask):
        with self.fabric.lock:
            self.state = attributes.qp_state

    def query(self, mask):
        return types.SimpleNamespace(qp_state=self.state), None

    def close(self):
        assert not self.context.unacknowledged, "it would wait for ever"
        with self.fabric.lock:
            self.fabric.qps.pop(self.qp_num, None)
        super().close()

    def post_send(self, request):
        with self.fabric.lock:
            if not self.is_open or self.state not in (RTS, ERR):
                raise PyverbsError("Failed to post send", errno.EINVAL)
            self.silent = 0 if request.is_signalled else self.silent + 1
            assert self.silent < self.depth, "nothing would ever free the send queue"
            status = FLUSHED
            if self.state == RTS:
                status = self.fabric.on_post(self, request)
                if status is None:
                    status = self.carry_out(request)
            if status != SUCCESS:
                self.state = ERR
            if request.is_signalled or status != SUCCESS:
                self.complete(request.wr_id, status, request.opcode)

    def carry_out(self, request):
        """Does it, and returns its status."""
        peer = self.fabric.qps.get(self.peer)
        if peer is None or peer.state != RTS or peer.peer != self.qp_num:
            return RETRY
        find = self.fabric.find
        address, size, lkey = request.local
        here = find(lkey, address, size, 0) if size else 0
        if here is None:
            return LOC_PROT
        if request.remote is not None and size:
            rkey, address = request.remote
            there = find(rkey, address, size, 4 if request.opcode == READ else 2)
            if there is None:
                peer.state = ERR
                peer.context.tell(ACCESS_ERROR_EVENT)
                return REM_ACCESS
            ends = (here, there) if request.opcode == READ else (there, here)
            ctypes.memmove(*ends, size)
        if request.opcode in (SEND_IMM, WRITE_IMM):
            return peer.receive(request, here, size)
        return SUCCESS

    def receive(self, request, data, size):
        if not self.srq.requests:
            return RNR
        buffer = self.srq.requests.popleft()
        is_write = request.opcode == WRITE_IMM
        if not is_write:
            address, room, lkey = buffer.local
            assert size <= room, "a SEND longer than the receive buffer"
            where = self.fabric.find(lkey, address, size, 1)
            assert where is not None, "a receive buffer that was taken back"
            ctypes.memmove(where, data, size)
        opcode = RECV_WRITE if is_write else RECV
        self.complete(buffer.wr_id, SUCCESS, opcode, size, request.imm)
        return SUCCESS

    def complete(self, wr_id, status, opcode, size=0, imm=0):
        self.cq.push(
            wr_id=wr_id,
            status=status,
            opcode=opcode,
            byte_len=size,
            qp_num=self.qp_num,
            imm_data=imm,
        )


def install(monkeypatch):
    """Has `rdma://` find this device, and no other; the fabric, which is new."""
    global _fabric
    _fabric = Fabric()
    for name, contents in _MODULES.items():
        module = types.ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    rail = importlib.import_module("jscale.transport.rdma_rail")
    monkeypatch.setattr(rail, "_FD_NAME", FD_NAME)
    rdma = importlib.import_module("jscale.transport.rdma")
    monkeypatch.setattr(rdma, "list_ports", lambda: PORTS)
    monkeypatch.setattr(registry, "why_not_rdma", lambda: None)
    return _fabric


_fabric = Fabric()

_MODULES = {
    "pyverbs": {},
    "pyverbs.enums": vars(enums),
    "pyverbs.addr": {
        "GID": lambda text: text,
        "AHAttr": lambda **fields: fields,
        "GlobalRoute": lambda **fields: fields,
    },
    "pyverbs.cq": {"CQ": CQ, "CompChannel": CompChannel},
    "pyverbs.device": {"Context": Context},
    "pyverbs.mr": {"MR": MR, "DmaBufMR": DmaBufMR},
    "pyverbs.pd": {"PD": PD},
    "pyverbs.pyverbs_error": {"PyverbsError": PyverbsError},
    "pyverbs.qp": {
        "QP": QP,
        "QPAttr": QPAttr,
        "QPCap": lambda **fields: fields,
        "QPInitAttr": lambda **fields: fields,
    },
    "pyverbs.srq": {
        "SRQ": SRQ,
        "SrqAttr": lambda max_wr: max_wr,
        "SrqInitAttr": lambda depth: depth,
    },
    "pyverbs.wr": {"SGE": SGE, "RecvWR": RecvWR, "SendWR": SendWR},
}
