"""Memory that jscale owns, lent to JAX as arrays: a DLPack capsule made by hand.

NumPy can neither export bfloat16 nor tell when a borrower is done; DLPack, an ABI of
four C structs, can do both.

Source: DLPack 0.8, `dlpack.h`.
"""

import atexit
import ctypes
from collections.abc import Sequence
from typing import Any

import jax
from jax import dlpack

_TYPE_CODES = {"float32": (2, 32), "float16": (2, 16), "bfloat16": (4, 16)}
"""Element type -> (DLDataTypeCode, bits)."""

CPU = (1, 0)
"""`kDLCPU`, device 0."""

CUDA_TYPE = 2
"""`kDLCUDA`; its devices are numbered as the driver numbers those it shows us."""


def lend(
    address: int,
    dtype: str,
    shape: Sequence[int],
    *,
    keep_alive: object,
    device: tuple[int, int] = CPU,
) -> jax.Array:
    """An array that aliases the bytes at `address`, a multiple of 64, of a device.

    The bytes must be final by now, in the memory of the device: whatever brought them
    there was waited for. So no stream of the borrower has to wait for one of ours.
    The memory must stay mapped and unchanged while the array, or a computation that
    was given it, lives. All that time `keep_alive` is referenced, and no longer: a
    `weakref.ref` to it tells whether the memory is free again. The release runs on
    whatever thread drops the array, takes no lock, and so may happen anywhere.
    """
    assert address % 64 == 0, address
    export = _Export(address, dtype, tuple(shape), device, keep_alive)
    _EXPORTS[export.key] = export
    try:
        array: jax.Array = dlpack.from_dlpack(export, copy=False)
    except BaseException:
        _EXPORTS.pop(export.key, None)
        raise
    return array


class _Device(ctypes.Structure):
    _fields_ = (("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32))


class _DataType(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
    )


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _ManagedTensor(ctypes.Structure):
    _fields_ = (
        ("tensor", _Tensor),
        ("manager_context", ctypes.c_void_p),
        ("deleter", _Deleter),
    )


class _Export:
    """One lent range, in the form that `from_dlpack` takes."""

    def __init__(
        self,
        address: int,
        dtype: str,
        shape: tuple[int, ...],
        device: tuple[int, int],
        keep_alive: object,
    ) -> None:
        self.keep_alive = keep_alive
        self._device = device
        self._extents = (ctypes.c_int64 * len(shape))(*shape)
        code, bits = _TYPE_CODES[dtype]
        self._managed = _ManagedTensor(
            tensor=_Tensor(
                data=address,
                device=_Device(*device),
                ndim=len(shape),
                dtype=_DataType(code, bits, 1),
                shape=self._extents,
            ),
            deleter=_DROP,
        )

    def disarm(self) -> None:
        """Leaves to the borrower a deleter that is safe without an interpreter."""
        self._managed.deleter = _Deleter(_DO_NOTHING)

    @property
    def key(self) -> int:
        """Address of the C struct: what the deleter is told."""
        return ctypes.addressof(self._managed)

    def __dlpack__(self, **_: Any) -> object:
        # Among what is ignored: the stream to wait on, as nothing is under way.
        return _new_capsule(self.key, _CAPSULE_NAME, None)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device


_EXPORTS: dict[int, _Export] = {}
"""What is lent now. Setting and popping a key are atomic: no lock is needed."""

_CAPSULE_NAME = b"dltensor"
_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)


def _drop(key: int) -> None:
    _EXPORTS.pop(key, None)


_DROP = _Deleter(_drop)


@atexit.register
def _disarm_all() -> None:
    """Before the interpreter goes: arrays that outlive it must not call into it.

    Their memory stays mapped to the very end, for computations still in flight.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(_EXPORTS))
    for export in tuple(_EXPORTS.values()):
        export.disarm()


_DO_NOTHING = ctypes.cast(ctypes.pythonapi.Py_IsInitialized, ctypes.c_void_p).value or 0
"""A C function that reads a flag: harmless at any time, whatever it is called with."""
