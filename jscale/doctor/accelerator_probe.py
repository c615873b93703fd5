"""What JAX and CUDA see, told as JSON by a process of its own.

`python -m jscale.doctor.accelerator_probe`: a driver that hangs or crashes takes this
process along, and not the one that wants to know.
"""

import importlib
import json
import os
from typing import Any

CUDA_DMA_BUF_SUPPORTED = 124
"""CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED in cuda.h."""


def main() -> None:
    """Prints `{"devices": […], "jax_error": …, "dma_buf": …, "dma_buf_error": …}`."""
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # Others may be using it.
    print(json.dumps(_devices() | _dma_buf()), flush=True)


def _devices() -> dict[str, Any]:
    try:
        import jax

        devices = [
            {"platform": device.platform, "kind": device.device_kind, "id": device.id}
            for device in jax.devices()
        ]
    except Exception as error:  # noqa: BLE001 - Whatever it is, it is the answer.
        return {"devices": [], "jax_error": _one_line(error)}
    return {"devices": devices, "jax_error": ""}


def _dma_buf() -> dict[str, Any]:
    """Whether the first CUDA device gives its memory out as DMA-BUF."""
    try:
        driver = importlib.import_module("cuda.bindings.driver")
        _checked(driver.cuInit(0))
        (device,) = _checked(driver.cuDeviceGet(0))
        attribute = driver.CUdevice_attribute(CUDA_DMA_BUF_SUPPORTED)
        (supported,) = _checked(driver.cuDeviceGetAttribute(attribute, device))
    except Exception as error:  # noqa: BLE001 - As above.
        return {"dma_buf": None, "dma_buf_error": _one_line(error)}
    return {"dma_buf": bool(supported), "dma_buf_error": ""}


def _checked(answer: tuple[Any, ...]) -> tuple[Any, ...]:
    code, *values = answer
    if int(code):
        raise OSError(f"CUDA says {code.name}")
    return tuple(values)


def _one_line(error: Exception) -> str:
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


if __name__ == "__main__":
    main()
