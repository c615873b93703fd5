"""Network interfaces of this machine, and their IPv4 addresses."""

import fcntl
import socket
import struct

_SIOCGIFADDR = 0x8915


def own_addresses() -> dict[str, str]:
    """The IPv4 address of each interface that has one, by its name."""
    addresses = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
            except OSError:
                continue  # It has no such address.
            addresses[name] = socket.inet_ntoa(answer[20:24])
    return addresses


def interface_of(host: str) -> str | None:
    """The interface that has the host's address; None if none is seen to."""
    try:
        wanted = socket.gethostbyname(host)
    except (OSError, UnicodeError):
        return None
    named = own_addresses().items()
    return next((name for name, address in named if address == wanted), None)
