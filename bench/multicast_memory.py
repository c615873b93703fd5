"""How much memory this process takes."""


def peak_memory_bytes() -> int:
    """The most memory this process has had, everything counted, since the reset."""
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def reset_peak_memory() -> None:
    """Forgets the peak of what went before."""
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
