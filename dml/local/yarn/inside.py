"""The first process of a YARN's own network, which dml.local.yarn.namespace starts.

`python -m dml.local.yarn.inside FD` brings loopback up, and makes the sockets that its owner asks for: a socket belongs
to the network that it was made in, whoever holds it. FD is a connection to the owner. When that ends, because the owner
has ended, however that came, this process ends too, and as it is the first of its process namespace, the kernel kills
all others.
"""

import contextlib
import fcntl
import json
import signal
import socket
import struct
import sys

SIOCSIFFLAGS, UP, RUNNING = 0x8914, 0x1, 0x40  # netdevice(7)
LOOPBACK = "127.0.0.1"


def bring_loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", UP | RUNNING))


def made(request: dict[str, int]) -> socket.socket:
    """A socket that listens on a port (0: any that is free), or one that is connected to a port."""
    if "listen" in request:
        return socket.create_server((LOOPBACK, request["listen"]), backlog=128)
    return socket.create_connection((LOOPBACK, request["connect"]), timeout=5)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whose parents have ended are ours, and nobody waits for them
    owner = socket.socket(fileno=int(sys.argv[1]))
    bring_loopback_up()
    owner.send(b"{}")
    while request := owner.recv(4096):
        try:
            with made(json.loads(request)) as given:
                socket.send_fds(owner, [b"{}"], [given.fileno()])
        except OSError as error:
            owner.send(json.dumps({"error": str(error)}).encode())


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, ConnectionError):
        main()
