"""What a machine offers, told as it is: on made-up machines, and on this one."""

import io
import json
import os
import subprocess
import sys

import pytest
from rich.console import Console

from jscale.core.errors import ConfigError
from jscale.doctor import machine, rdma
from jscale.doctor.accelerators import Accelerators, run_command
from jscale.doctor.examine import DoctorConfig, examine
from jscale.doctor.findings import Finding, Section, Verdict, as_json
from jscale.doctor.kernel_files import KernelFiles
from jscale.doctor.screen import show
from jscale.transport.rdma_options import RdmaOptions
from tests.transport.fake_sysfs import add_device, infiniband, roce

GPU = {"platform": "gpu", "kind": "NVIDIA H100 80GB HBM3", "id": 0}
CPU = {"platform": "cpu", "kind": "cpu", "id": 0}
SMI = "0, NVIDIA H100 80GB HBM3, 81559 MiB, 570.86.15, 00000000:18:00.0\n"


def answers(device=CPU, *, dma_buf=None, smi=None):
    """What other programs say."""

    def ask(command, timeout_s):
        if command[0] == "nvidia-smi":
            if smi is None:
                raise FileNotFoundError(command[0])
            return smi
        answer = {"devices": [device], "jax_error": "", "dma_buf": dma_buf}
        return "a warning\n" + json.dumps(answer | {"dma_buf_error": ""}) + "\n"

    return ask


@pytest.fixture
def files(tmp_path):
    """A machine without RDMA."""
    made = KernelFiles(tmp_path / "sys", tmp_path / "proc", tmp_path / "dev")
    (made.proc / "self").mkdir(parents=True)
    (made.proc / "self/status").write_text("CapEff:\t000001ffffffffff\n")
    (made.proc / "self/mounts").write_text("root / xfs rw 0 0\n")
    (made.proc / "meminfo").write_text("MemTotal: 2097152 kB\nMemAvailable: 1024 kB\n")
    (made.proc / "cpuinfo").write_text(
        "model name\t: Fast One\nflags\t\t: fpu sse4_2 avx2 avx512_bf16\n"
    )
    return made


@pytest.fixture
def rdma_files(files):
    """The same with two NICs, of which one is plugged in, and one on InfiniBand."""
    add_device(files.sysfs, "mlx5_0", roce("10.0.0.2", "eth2"), numa=0)
    down = roce("10.0.1.2", "eth3", state="1: DOWN")
    add_device(files.sysfs, "mlx5_1", down, numa=1)
    add_device(files.sysfs, "mlx5_2", infiniband(), numa=1)
    (files.dev / "infiniband").mkdir(parents=True)
    (files.dev / "infiniband/uverbs0").touch()
    return files


def told(files, ask, config=None, load=lambda: None):
    config = config or DoctorConfig(host="10.0.0.2", cache_dir=str(files.dev.parent))
    return as_json(examine(config, files=files, ask=ask, load=load))


# --- without RDMA --------------------------------------------------------------------


def test_a_plain_machine_is_told_as_it_is(files):
    found = told(files, answers())
    assert found["accelerators"]["jax"]["text"] == "1 × cpu"
    assert found["RDMA"]["devices"]["text"] == "none"
    assert "modprobe" in found["RDMA"]["devices"]["advice"]
    assert "not needed" in found["GPUDirect"]["memory"]["text"]
    assert found["memory"]["memory"]["total_bytes"] == 2 << 30
    assert "Fast One" in found["processors"]["cores"]["text"]
    features = found["processors"]["features"]["features"]
    assert features == ["avx2", "avx512_bf16", "sse4_2"]
    chosen = found["transport=auto"]["10.0.0.2"]
    assert (chosen["scheme"], chosen["path"], chosen["ports"]) == ("tcp", "host", [])
    assert "no RDMA device" in chosen["reason"]


def test_a_machine_of_which_nothing_is_known_is_told_of_all_the_same(tmp_path):
    files = KernelFiles(tmp_path / "sys", tmp_path / "proc", tmp_path / "dev")
    found = told(files, answers())
    assert found["processors"]["features"]["text"] == "none that matter"
    assert found["memory"]["shared memory"]["verdict"] == "lacking"
    assert found["memory"]["huge pages"]["text"] == "transparent: not offered"


def test_what_rdma_was_demanded_for_and_lacks_is_told(files):
    config = DoctorConfig(transport="rdma", host="10.0.0.2")
    chosen = told(files, answers(), config)["transport=rdma"]["10.0.0.2"]
    assert chosen["text"] == "none"
    assert "RDMA was asked for and cannot be used" in chosen["advice"]


def test_huge_pages_are_counted_by_size(files):
    folder = files.sysfs / "kernel/mm/hugepages/hugepages-2048kB"
    folder.mkdir(parents=True)
    (folder / "nr_hugepages").write_text("512\n")
    (folder / "free_hugepages").write_text("500\n")
    mode = files.sysfs / "kernel/mm/transparent_hugepage"
    mode.mkdir()
    (mode / "enabled").write_text("always [madvise] never\n")
    pages = told(files, answers())["memory"]["huge pages"]
    assert pages["text"] == "2.0 MiB: 500 free of 512, transparent: madvise"
    assert pages["2048_kib"] == {"total": 512, "free": 500}


def test_huge_pages_that_are_switched_off_are_told_with_what_to_do(files):
    mode = files.sysfs / "kernel/mm/transparent_hugepage"
    mode.mkdir(parents=True)
    (mode / "enabled").write_text("always madvise [never]\n")
    pages = told(files, answers())["memory"]["huge pages"]
    assert pages["verdict"] == "lacking"
    assert f"echo madvise > {mode}/enabled" in pages["advice"]


# --- with RDMA -----------------------------------------------------------------------


def test_ports_are_told_with_state_rate_node_and_addresses(rdma_files):
    found = told(rdma_files, answers())["RDMA"]
    port = found["mlx5_0:1"]
    assert port["text"] == "ACTIVE, 100 Gbit/s, Ethernet, NUMA node 0"
    assert port["gids"][3] == {
        "index": 3,
        "address": "::ffff:10.0.0.2",
        "kind": "RoCE v2",
        "netdev": "eth2",
    }
    assert found["mlx5_1:1"]["verdict"] == "lacking"
    assert "cable" in found["mlx5_1:1"]["advice"]
    assert found["mlx5_2:1"]["lid"] == 28
    assert found["devices"]["text"] == "may be opened"
    assert found["pyverbs"]["verdict"] == "good"


def test_what_auto_would_choose_is_told_with_the_ports(rdma_files):
    chosen = told(rdma_files, answers())["transport=auto"]["10.0.0.2"]
    assert chosen["scheme"] == "rdma"
    assert chosen["ports"] == ["mlx5_0:1"]
    assert chosen["path"] == "host"
    assert "GID 3 10.0.0.2" in chosen["text"]


def test_a_missing_library_is_told_where_there_are_devices(rdma_files):
    def load():
        raise ImportError("libibverbs.so.1: cannot open")

    found = told(rdma_files, answers(), load=load)
    assert found["RDMA"]["pyverbs"]["verdict"] == "lacking"
    assert "apt install" in found["RDMA"]["pyverbs"]["advice"]
    assert found["transport=auto"]["10.0.0.2"]["scheme"] == "tcp"


def test_a_device_that_was_named_and_is_not_there_is_told_with_those_that_are(
    rdma_files,
):
    config = DoctorConfig(rdma=RdmaOptions(("mlx5_9",)), host="10.0.0.2")
    chosen = told(rdma_files, answers(), config)["transport=auto"]["10.0.0.2"]
    assert chosen["scheme"] == "tcp"
    assert "'mlx5_9': there is mlx5_0:1 ACTIVE" in chosen["advice"]


# --- with accelerators ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("dma_buf", "module", "transport", "path"),
    [
        (True, "", "auto", "dmabuf"),
        (True, "nvidia_peermem", "auto", "dmabuf"),
        (False, "nvidia_peermem", "auto", "peermem"),
        (None, "nv_peer_mem", "auto", "peermem"),
        (False, "", "auto", "staged"),
        (True, "nvidia_peermem", "tcp", "staged"),
    ],
)
def test_the_path_into_an_accelerator_is_the_best_that_there_is(
    rdma_files, dma_buf, module, transport, path
):
    modules = f"tls 1 0 - Live 0x0\n{module} 16384 0 - Live 0x0\n"
    (rdma_files.proc / "modules").write_text(modules if module else "tls 1 0\n")
    config = DoctorConfig(transport=transport, host="10.0.0.2")
    found = told(rdma_files, answers(GPU, dma_buf=dma_buf, smi=SMI), config)
    assert found[f"transport={transport}"]["10.0.0.2"]["path"] == path
    assert found["GPUDirect"]["peer memory"]["module"] == module
    assert found["GPUDirect"]["DMA-BUF"]["cuda"] is dma_buf


def test_accelerators_are_told_with_driver_and_node(rdma_files):
    place = rdma_files.sysfs / "bus/pci/devices/0000:18:00.0"
    place.mkdir(parents=True)
    (place / "numa_node").write_text("1\n")
    found = told(rdma_files, answers(GPU, smi=SMI))["accelerators"]
    assert found["jax"]["verdict"] == "good"
    assert found["gpu 0"]["text"] == (
        "NVIDIA H100 80GB HBM3, 81559 MiB, driver 570.86.15, NUMA node 1"
    )


def test_gpus_of_other_pci_domains_have_their_own_node(files):
    for domain, node in (("0000", "0"), ("0001", "1")):
        place = files.sysfs / f"bus/pci/devices/{domain}:18:00.0"
        place.mkdir(parents=True)
        (place / "numa_node").write_text(node)
    smi = SMI.replace("00000000:18", "00000001:18")
    found = told(files, answers(GPU, smi=smi))["accelerators"]
    assert found["gpu 0"]["text"].endswith("NUMA node 1")


def test_what_nvidia_smi_says_instead_of_a_table_is_told(files):
    found = told(files, answers(smi="No devices were found\n"))["accelerators"]
    assert found["nvidia-smi"]["text"] == "No devices were found"


@pytest.mark.parametrize(
    ("kernel", "is_new"),
    [("5.11.9", False), ("5.12.0-1-amd64", True), ("6.1.0", True), ("odd", False)],
)
def test_dma_buf_needs_a_kernel_that_knows_of_it(kernel, is_new):
    assert rdma.can_dma_buf(Accelerators(dma_buf=True), kernel) is is_new
    assert not rdma.can_dma_buf(Accelerators(dma_buf=False), kernel)


def test_a_driver_that_does_not_answer_is_told_and_the_rest_is_told_too(files):
    def ask(command, timeout_s):
        raise OSError(f"no answer within {timeout_s:.0f} s")

    found = told(files, ask)
    assert found["accelerators"]["jax"]["verdict"] == "lacking"
    assert "no answer within 60 s" in found["accelerators"]["jax"]["text"]
    assert "no answer within 20 s" in found["accelerators"]["nvidia-smi"]["text"]
    assert found["transport=auto"]["10.0.0.2"]["scheme"] == "tcp"


def test_a_program_that_hangs_fails_or_is_missing_is_an_error_with_its_reason():
    with pytest.raises(OSError, match="no answer within 0 s"):
        run_command([sys.executable, "-c", "input()"], 0.01)
    program = "import sys; print('gone wrong', file=sys.stderr); sys.exit(3)"
    with pytest.raises(OSError, match="exit status 3: gone wrong"):
        run_command([sys.executable, "-c", program], 20.0)
    with pytest.raises(FileNotFoundError):
        run_command(["there-is-no-such-program"], 1.0)


# --- files ---------------------------------------------------------------------------


def test_a_folder_is_of_the_innermost_file_system_that_it_is_in(files, tmp_path):
    mounts = f"a / xfs rw 0 0\nb {tmp_path} nfs rw 0 0\nc {tmp_path}-2 ext4 rw 0 0\n"
    (files.proc / "self/mounts").write_text(mounts)
    (section,) = machine.storage(str(tmp_path / "not/made/yet"), files).findings
    assert section.facts["file_system"] == "nfs"
    assert section.facts["folder"] == str(tmp_path)


def test_a_file_system_that_refuses_o_direct_is_told_so(tmp_path, monkeypatch):
    def refuse(path, flags):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr("os.open", refuse)
    assert machine._why_not_read("file") == "no (Invalid argument)"


def test_a_folder_that_may_not_be_written_says_nothing_of_o_direct(
    files, tmp_path, monkeypatch
):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)
    (finding,) = machine.storage(str(tmp_path), files).findings
    assert finding.text.endswith("cannot be tried: Permission denied")
    assert (finding.verdict, finding.advice) == (Verdict.PLAIN, "")


def test_a_folder_below_one_that_is_closed_to_us_is_passed_over(
    files, tmp_path, monkeypatch
):
    real = os.stat

    def refuse(path, *_, **options):
        if "closed/" in os.fspath(path):
            raise PermissionError(13, "Permission denied")
        return real(path, **options)

    monkeypatch.setattr("os.stat", refuse)
    (tmp_path / "closed").mkdir()
    (finding,) = machine.storage(f"{tmp_path}/closed/to/us", files).findings
    assert finding.facts["folder"] == f"{tmp_path}/closed"
    machine.storage("~who-is-not-there/cache", files)


# --- on the screen -------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 120])
def test_everything_that_was_found_is_on_the_screen(rdma_files, width):
    config = DoctorConfig(host="10.0.0.2")
    sections = examine(config, files=rdma_files, ask=answers(GPU, smi=SMI))
    screen = io.StringIO()
    show(sections, Console(file=screen, width=width))
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    shown = unspaced(screen.getvalue())
    for section in sections:
        for finding in section.findings:
            for text in (finding.name, finding.text, finding.advice, *finding.details):
                assert unspaced(text) in shown


def test_what_is_to_be_done_for_several_is_said_once():
    findings = [Finding(name, "no", advice="do this") for name in ("one", "two")]
    screen = io.StringIO()
    show([Section("things", findings)], Console(file=screen, width=80))
    assert screen.getvalue().count("do this") == 1


def unspaced(text):
    """What is left when lines are broken anywhere."""
    return "".join(text.split())


def test_a_transport_that_nobody_knows_is_refused():
    with pytest.raises(ConfigError, match="give one of auto, tcp, rdma"):
        DoctorConfig(transport="pigeon")


# --- here ----------------------------------------------------------------------------


def doctor(*arguments):
    command = [sys.executable, "-m", "jscale.launch.doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_this_machine_is_told_as_json():
    ended = doctor("--json", "--host=127.0.0.1", "--transport=tcp")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["accelerators"]["jax"]["devices"], found
    assert found["transport=tcp"]["127.0.0.1"]["scheme"] == "tcp"
    assert found["processors"]["CRC32C"]["bytes_per_s"] > 0


def test_a_wrong_flag_is_one_line():
    ended = doctor("--rdma_retry_s=-1")
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("doctor: rdma retry_s is -1.0")
    assert "Traceback" not in ended.stderr
