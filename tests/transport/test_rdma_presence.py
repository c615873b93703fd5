import importlib.machinery
import subprocess
import sys

import pytest

from jscale.transport.rdma_presence import (
    LOCKED_BYTES_LEAST,
    can_lock_all,
    why_no_access,
    why_no_device,
    why_no_pyverbs,
    why_not_locked,
    why_not_rdma,
)
from tests.transport.fake_sysfs import add_device, roce

UNLIMITED = -1


def is_missing(name):
    def load():
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    return load


@pytest.fixture
def machine(tmp_path):
    """One on which nothing is missing."""
    add_device(tmp_path / "sys", "mlx5_0", roce("10.0.0.2"), numa=0)
    (tmp_path / "dev/infiniband").mkdir(parents=True)
    (tmp_path / "dev/infiniband/uverbs0").touch()
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/status").write_text("CapEff:\t000001ffffffffff\n")
    return {
        "sysfs": tmp_path / "sys",
        "dev": tmp_path / "dev",
        "proc": tmp_path / "proc",
        "load": lambda: None,
    }


def test_where_nothing_is_missing_nothing_is_said(machine):
    assert why_not_rdma(**machine) is None


def test_each_thing_that_is_missing_is_said(machine, tmp_path):
    for name, value, said in (
        ("sysfs", tmp_path / "none", "no RDMA device"),
        ("dev", tmp_path / "none", "no uverbs device"),
        ("load", is_missing("pyverbs"), "pyverbs"),
    ):
        assert said in why_not_rdma(**machine | {name: value})


def test_what_is_said_is_one_line_that_says_what_to_do(machine, tmp_path):
    lines = (
        why_no_device(tmp_path / "none"),
        why_no_access(tmp_path / "none"),
        why_no_pyverbs(is_missing("pyverbs"), ()),
        why_not_locked(LOCKED_BYTES_LEAST, (65536, 65536), False),
    )
    for line, to_do in zip(
        lines, ("modprobe", "modprobe", "apt install", "memlock"), strict=True
    ):
        assert "\n" not in line
        assert to_do in line


def test_devices_of_which_one_can_be_opened_are_enough(machine, monkeypatch):
    dev = machine["dev"]
    (dev / "infiniband/uverbs1").touch()
    monkeypatch.setattr("os.access", lambda node, mode: node.name == "uverbs1")
    assert why_no_access(dev) is None
    monkeypatch.setattr("os.access", lambda node, mode: False)
    assert "no permission to open" in why_no_access(dev)
    assert "uverbs0" in why_no_access(dev)


# --- pyverbs -------------------------------------------------------------------------


def test_a_library_that_is_missing_is_named_with_its_packages():
    def load():
        raise ImportError("libibverbs.so.1: cannot open shared object file")

    said = why_no_pyverbs(load)
    assert "libibverbs.so.1" in said
    assert "apt install python3-pyverbs ibverbs-providers rdma-core" in said


def test_a_pyverbs_that_the_environment_does_not_see_is_linked_into_it(tmp_path):
    package = tmp_path / "pyverbs"
    package.mkdir()
    (package / f"device{importlib.machinery.EXTENSION_SUFFIXES[0]}").touch()
    said = why_no_pyverbs(is_missing("pyverbs"), (tmp_path / "none", tmp_path))
    assert f"ln -s {package} " in said
    assert "site-packages/" in said


def test_a_pyverbs_of_another_python_is_told_by_both_versions(tmp_path):
    package = tmp_path / "pyverbs"
    package.mkdir()
    (package / "device.cpython-39-x86_64-linux-gnu.so").touch()
    said = why_no_pyverbs(is_missing("pyverbs.device"), (tmp_path,))
    assert f"{package} is built for CPython 3.9" in said
    assert f"this is 3.{sys.version_info.minor}" in said


# --- locked memory -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hard", "can_lock", "is_enough"),
    [
        (LOCKED_BYTES_LEAST, False, True),
        (LOCKED_BYTES_LEAST - 1, False, False),
        (UNLIMITED, False, True),
        (0, True, True),
    ],
)
def test_the_hard_limit_counts_unless_the_process_may_ignore_it(
    hard, can_lock, is_enough
):
    said = why_not_locked(LOCKED_BYTES_LEAST, (0, hard), can_lock)
    assert (said is None) is is_enough


def test_a_limit_is_told_with_what_is_needed():
    said = why_not_locked(64 << 20, (8 << 20, 8 << 20), False)
    assert "only 8.0 MiB" in said
    assert "at least 64.0 MiB" in said


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [("0000000000004000", True), ("000001ffffffbfff", False), ("0", False)],
)
def test_the_capability_is_the_one_to_lock_memory(tmp_path, capabilities, expected):
    (tmp_path / "self").mkdir()
    status = f"Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t{capabilities}\n"
    (tmp_path / "self/status").write_text(status)
    assert can_lock_all(tmp_path) is expected


def test_a_process_without_procfs_may_not_lock_all(tmp_path):
    assert not can_lock_all(tmp_path)


# --- nothing needs it ----------------------------------------------------------------


def test_no_module_but_those_of_rdma_needs_pyverbs():
    """All that a worker imports, with pyverbs made impossible."""
    program = (
        "import sys; sys.modules['pyverbs'] = None\n"
        "import jscale.cluster.worker, jscale.launch.worker, jscale.launch.serve\n"
        "import jscale.transport.tcp, jscale.transport.registry\n"
        "import jscale.transport.rdma_devices, jscale.transport.rdma_presence\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
