import ctypes

import jax
import pytest

from jscale.store import dlpack


def test_the_borrower_is_told_the_device_and_the_address():
    export = dlpack._Export(0x7000, "bfloat16", (2, 3), (dlpack.CUDA_TYPE, 1), None)
    assert export.__dlpack_device__() == (2, 1)
    capsule = export.__dlpack__(stream=7)
    read = ctypes.pythonapi.PyCapsule_GetPointer
    read.restype, read.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    address = read(capsule, b"dltensor")
    tensor = dlpack._ManagedTensor.from_address(address).tensor
    assert (tensor.device.device_type, tensor.device.device_id) == (2, 1)
    assert tensor.data == 0x7000
    assert (tensor.dtype.code, tensor.dtype.bits, tensor.dtype.lanes) == (4, 16, 1)
    assert [tensor.shape[axis] for axis in range(tensor.ndim)] == [2, 3]


def test_a_device_that_jax_does_not_have_borrows_nothing():
    if jax.default_backend() == "gpu":
        pytest.skip("it has one")
    before = len(dlpack._EXPORTS)
    with pytest.raises(RuntimeError, match="cuda"):
        dlpack.lend(0x7000, "float32", (4,), keep_alive=None, device=(2, 0))
    assert len(dlpack._EXPORTS) == before
