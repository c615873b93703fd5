"""The memory of an NVIDIA GPU, by its driver."""

import importlib
import threading
from typing import Any

import numpy as np

from jscale.core.units import format_size, round_up
from jscale.store.device_memory import (
    Copy,
    DeviceMemory,
    DeviceMemoryError,
    MemoryInfo,
)
from jscale.store.dlpack import CUDA_TYPE

_ALIGNMENT_BYTES = 64 << 10
"""A page of GPU memory as other devices map it; more than any page of a host."""


def load_driver() -> Any:
    """The CUDA driver's functions, started.

    Raises:
      DeviceMemoryError: there is no binding, no driver or no GPU, and what to do.
    """
    try:
        driver = importlib.import_module("cuda.bindings.driver")
    except ImportError as error:
        raise DeviceMemoryError(
            f"cuda-bindings cannot be imported ({error}): pip install 'jscale[cuda]'"
        ) from error
    try:
        _check(driver, "cuInit", driver.cuInit(0))
        count = _check(driver, "cuDeviceGetCount", driver.cuDeviceGetCount())
    except RuntimeError as error:  # The library of the driver is not there.
        raise DeviceMemoryError(
            f"no CUDA driver ({error}): install that of the GPU"
        ) from error
    if not count:
        raise DeviceMemoryError("the CUDA driver shows no GPU: CUDA_VISIBLE_DEVICES?")
    return driver


class CudaMemory(DeviceMemory):
    """One GPU, in the context that XLA uses too. Thread-safe.

    Allocations are the driver's own (`cuMemAlloc`), which DMA-BUF and nvidia-peermem
    can export, and which no pool of XLA knows of. Two streams, as a link to a GPU
    carries both directions at once; copies out wait for the copies in before them.
    """

    def __init__(self, driver: Any, index: int = 0) -> None:
        """The GPU of that number among those that the driver shows.

        Args:
          driver: what `load_driver` returned.
          index: of the GPU; JAX counts in the same way.

        Raises:
          DeviceMemoryError: there is none, or it cannot be used.
        """
        self._driver = driver
        self._index = index
        self._device = self._ask("cuDeviceGet", index)
        name: bytes = self._ask("cuDeviceGetName", 256, self._device)
        self._name = name.split(b"\0")[0].decode()
        self._context = self._ask("cuDevicePrimaryCtxRetain", self._device)
        non_blocking = driver.CUstream_flags.CU_STREAM_NON_BLOCKING
        self._stream_in = self._call("cuStreamCreate", non_blocking)
        self._stream_out = self._call("cuStreamCreate", non_blocking)
        scopes = driver.CUflushGPUDirectRDMAWritesScope
        self._to_owner = scopes.CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_OWNER
        self._must_flush = self._needs_flushes()
        self._lock = threading.Lock()
        # Guarded by _lock:
        self._allocated: dict[int, int] = {}
        self._last_in: _CudaCopy | None = None
        # Appending and popping are atomic:
        self._events: list[Any] = []

    @property
    def name(self) -> str:
        """See `DeviceMemory`."""
        return self._name

    @property
    def dlpack_device(self) -> tuple[int, int]:
        """See `DeviceMemory`."""
        return CUDA_TYPE, self._index

    def info(self) -> MemoryInfo:
        """See `DeviceMemory`."""
        free_bytes, total_bytes = self._call("cuMemGetInfo")
        return MemoryInfo(int(free_bytes), int(total_bytes))

    def allocate(self, size_bytes: int) -> int:
        """See `DeviceMemory`."""
        wanted = round_up(size_bytes, _ALIGNMENT_BYTES) + _ALIGNMENT_BYTES
        try:
            start = int(self._call("cuMemAlloc", wanted))
        except DeviceMemoryError as error:
            free = format_size(self.info().free_bytes)
            raise DeviceMemoryError(
                f"{error}: {format_size(size_bytes)} wanted and {free} free; serve a "
                "smaller model, or end what else uses the GPU (nvidia-smi)"
            ) from error
        address = round_up(start, _ALIGNMENT_BYTES)
        with self._lock:
            self._allocated[address] = start
        return address

    def free(self, address: int) -> None:
        """See `DeviceMemory`."""
        with self._lock:
            start = self._allocated.pop(address)
        self._call("cuMemFree", start)

    def pin(self, memory: memoryview) -> None:
        """See `DeviceMemory`."""
        flags = self._driver.CU_MEMHOSTREGISTER_PORTABLE
        if memory.readonly:
            flags |= self._driver.CU_MEMHOSTREGISTER_READ_ONLY
        self._call("cuMemHostRegister", _address(memory), memory.nbytes, flags)

    def unpin(self, memory: memoryview) -> None:
        """See `DeviceMemory`."""
        self._call("cuMemHostUnregister", _address(memory))

    def copy_in(self, address: int, data: memoryview) -> Copy:
        """See `DeviceMemory`."""
        stream = self._stream_in
        with self._lock:
            event = self._new_event()
            self._call(
                "cuMemcpyHtoDAsync", address, _address(data), data.nbytes, stream
            )
            self._call("cuEventRecord", event, stream)
            self._last_in = _CudaCopy(self, event)
            return self._last_in

    def copy_out(self, into: memoryview, address: int) -> Copy:
        """See `DeviceMemory`."""
        stream = self._stream_out
        with self._lock:
            if self._last_in is not None:
                self._call("cuStreamWaitEvent", stream, self._last_in.event, 0)
            event = self._new_event()
            self._call(
                "cuMemcpyDtoHAsync", _address(into), address, into.nbytes, stream
            )
            self._call("cuEventRecord", event, stream)
        return _CudaCopy(self, event)

    def flush(self) -> None:
        """See `DeviceMemory`; most GPUs need no flush, and say so."""
        if self._must_flush:
            targets = self._driver.CUflushGPUDirectRDMAWritesTarget
            self._call(
                "cuFlushGPUDirectRDMAWrites",
                targets.CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TARGET_CURRENT_CTX,
                self._to_owner,
            )

    def settle(self) -> None:
        """See `DeviceMemory`."""
        self._call("cuStreamSynchronize", self._stream_in)
        self.flush()

    def export_dmabuf(self, address: int, size_bytes: int) -> int:
        """See `DeviceMemory`."""
        if not self._attribute("DMA_BUF_SUPPORTED"):
            raise DeviceMemoryError(
                f"{self._name}: the driver offers no DMA-BUF; it needs the open kernel "
                "modules (nvidia-open) and Linux 5.12, or load nvidia-peermem"
            )
        kinds = self._driver.CUmemRangeHandleType
        handle = self._call(
            "cuMemGetHandleForAddressRange",
            address,
            size_bytes,
            kinds.CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD,
            0,
        )
        return int(handle)

    def close(self) -> None:
        """See `DeviceMemory`."""
        for stream in (self._stream_in, self._stream_out):
            self._call("cuStreamSynchronize", stream)
            self._call("cuStreamDestroy", stream)
        self._last_in = None
        while self._events:
            self._call("cuEventDestroy", self._events.pop())
        self._ask("cuDevicePrimaryCtxRelease", self._device)

    def event_is_done(self, event: Any) -> bool:
        """Whether what was begun before the event is done."""
        self._ask("cuCtxSetCurrent", self._context)
        result = self._driver.cuEventQuery(event)
        if result[0] == self._driver.CUresult.CUDA_ERROR_NOT_READY:
            return False
        _check(self._driver, f"{self._name}: cuEventQuery", result)
        return True

    def wait_for(self, event: Any) -> None:
        """Returns when what was begun before the event is done."""
        self._call("cuEventSynchronize", event)

    def give_back(self, event: Any) -> None:
        """Nobody waits for the event any more."""
        self._events.append(event)

    def _new_event(self) -> Any:
        try:
            return self._events.pop()
        except IndexError:
            flags = self._driver.CUevent_flags
            sleeps = flags.CU_EVENT_BLOCKING_SYNC | flags.CU_EVENT_DISABLE_TIMING
            return self._call("cuEventCreate", int(sleeps))

    def _needs_flushes(self) -> bool:
        """Whether writes of other devices are seen late, and a call makes them seen."""
        is_ordered = self._attribute("GPU_DIRECT_RDMA_WRITES_ORDERING") >= int(
            self._to_owner
        )
        kinds = self._driver.CUflushGPUDirectRDMAWritesOptions
        by_host = int(kinds.CU_FLUSH_GPU_DIRECT_RDMA_WRITES_OPTION_HOST)
        options = self._attribute("GPU_DIRECT_RDMA_FLUSH_WRITES_OPTIONS")
        return not is_ordered and bool(options & by_host)

    def _attribute(self, name: str) -> int:
        attributes = self._driver.CUdevice_attribute
        attribute = getattr(attributes, f"CU_DEVICE_ATTRIBUTE_{name}")
        return int(self._ask("cuDeviceGetAttribute", attribute, self._device))

    def _call(self, function: str, *arguments: Any) -> Any:
        """Calls a function in our context, whatever the thread's was."""
        self._ask("cuCtxSetCurrent", self._context)
        return self._ask(function, *arguments)

    def _ask(self, function: str, *arguments: Any) -> Any:
        name = getattr(self, "_name", f"GPU {self._index}")
        result = getattr(self._driver, function)(*arguments)
        return _check(self._driver, f"{name}: {function}", result)


class _CudaCopy(Copy):
    """Lends an event until it is collected."""

    def __init__(self, device: CudaMemory, event: Any) -> None:
        self._device, self.event = device, event

    @property
    def is_done(self) -> bool:
        return self._device.event_is_done(self.event)

    def wait(self) -> None:
        self._device.wait_for(self.event)

    def __del__(self) -> None:
        self._device.give_back(self.event)


def _address(memory: memoryview) -> int:
    return int(np.frombuffer(memory, np.uint8).ctypes.data)


def _check(driver: Any, what: str, result: tuple[Any, ...]) -> Any:
    """What a function of the driver returned.

    Raises:
      DeviceMemoryError: it returned an error.
    """
    error, *values = result
    if error != driver.CUresult.CUDA_SUCCESS:
        _, text = driver.cuGetErrorString(error)
        reason = text.decode() if text else "unknown"
        raise DeviceMemoryError(f"{what}: {error.name}: {reason}")
    if len(values) > 1:
        return tuple(values)
    return values[0] if values else None
