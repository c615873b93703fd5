"""What a GPU will run compiles without one, wherever JAX's CUDA plugin is installed.

pip install '.[cuda]' && pytest tests/engine/test_gpu_compile.py
"""

import importlib.util

import jax
import pytest
from jax.experimental import serialize_executable, topologies

from jscale.checkpoint.random_model import config_of_size, write_random_model
from jscale.engine import kv_copy, program
from jscale.engine.config import EngineConfig
from jscale.engine.program import DONATED_ARGUMENTS, ModelProgram

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 3352000000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84942979072
  shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 minor: 0 }
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
"""What XLA must know of the device that it compiles for."""

WITHOUT_A_DEVICE = {"xla_gpu_autotune_level": 0}
"""Nothing can be tried out."""

if importlib.util.find_spec("jax_cuda13_plugin") is None:
    pytest.skip("JAX's CUDA plugin is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def sharding():
    """Where everything is: on a GPU that need not be there."""
    described = topologies.get_topology_desc(
        "h100", platform="cuda", target_config=H100, topology="1x1x1"
    )
    return jax.sharding.SingleDeviceSharding(described.devices[0])


@pytest.fixture
def for_gpu(tmp_path, monkeypatch):
    """The program of a model with all kinds of blocks, as it is on a GPU."""
    monkeypatch.setattr(program, "carrying_dtype", lambda dtype: dtype)
    monkeypatch.setattr(kv_copy, "carrying_dtype", lambda dtype: dtype)
    config = config_of_size(4 << 20, num_layers=4, dtype="bfloat16")
    manifest = write_random_model(tmp_path, config, dtype="bfloat16", num_blocks=3)
    return ModelProgram.of(manifest, EngineConfig(compute_dtype="bfloat16"))


def compiled(function, arguments, sharding, donated=()):
    def there(leaf):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    step = jax.jit(function, donate_argnums=donated)
    lowered = step.lower(*jax.tree.map(there, arguments))
    return lowered.compile(compiler_options=WITHOUT_A_DEVICE)


def test_blocks_compile_and_can_be_shipped(for_gpu, sharding):
    (fused,) = [spec for spec in for_gpu.fused_specs() if spec.bucket == 16]
    arguments = for_gpu.arguments(fused).flat()
    made = compiled(for_gpu.step(fused), arguments, sharding, DONATED_ARGUMENTS)
    assert len(serialize_executable.serialize(made)[0]) > 10_000


def test_kv_is_copied_by_what_can_be_shipped(for_gpu, sharding):
    for spec in kv_copy.kv_copy_specs(for_gpu):
        arguments = kv_copy.kv_copy_arguments(for_gpu, spec)
        made = compiled(kv_copy.kv_copy_step(spec), arguments, sharding)
        assert serialize_executable.serialize(made)[0]
