"""`cuda.bindings` itself, over a driver that does copies as late as it may."""

import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent
COMPILER = shutil.which("cc")

needs_bindings = pytest.mark.skipif(
    importlib.util.find_spec("cuda") is None, reason="cuda-bindings is not installed"
)


@pytest.fixture(scope="module")
def driver_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("driver")
    source, library = HERE / "fake_cuda.c", folder / "libcuda.so.1"
    flags = ["-Wall", "-Werror", "-D_GNU_SOURCE", "-shared", "-fPIC"]
    subprocess.run([COMPILER, *flags, "-o", library, source, "-ldl"], check=True)
    return folder


@needs_bindings
@pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")
def test_every_call_of_the_driver_is_right(driver_folder):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", HERE / "cuda_cases.py"],
        env={
            **os.environ,
            "LD_LIBRARY_PATH": str(driver_folder),
            "JAX_PLATFORMS": "cpu",  # JAX needs more of a driver than there is.
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


@needs_bindings
def test_without_a_driver_it_is_said_what_is_missing(tmp_path):
    script = """
from jscale.store.cuda_memory import load_driver
from jscale.store.device_memory import DeviceMemoryError
try:
    load_driver()
except DeviceMemoryError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True
    )
    if not done.stdout:
        pytest.skip("there is a GPU")
    assert "no CUDA driver" in done.stdout
    assert "install that of the GPU" in done.stdout


def test_without_bindings_it_is_said_what_to_install(monkeypatch):
    from jscale.store import cuda_memory
    from jscale.store.device_memory import DeviceMemoryError

    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    with pytest.raises(DeviceMemoryError, match=r"pip install 'jscale\[cuda\]'"):
        cuda_memory.load_driver()
