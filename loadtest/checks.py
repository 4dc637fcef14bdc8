"""What the machine must allow before thousands of websockets can be opened: each lack says what to raise."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["Machine", "raise_fd_limit", "shortages"]

SPARE_FDS = 256  # of a process, for all else
KB_A_USER = 120  # of locust's process, for each user; the server's part is small beside it
QUEUE = 1024


@dataclass(frozen=True)
class Machine:
    """What a machine allows; None where that can't be told."""

    fds: int
    hard_fds: int
    first_port: int | None
    last_port: int | None
    queue: int | None
    system_files: int | None
    tracked: int | None
    free_kb: int | None

    @classmethod
    def read(cls) -> Machine:
        """Return what this machine allows."""
        fds, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        ports = _numbers("/proc/sys/net/ipv4/ip_local_port_range")
        memory = _text("/proc/meminfo").partition("MemAvailable:")[2].split()
        return cls(
            fds=fds,
            hard_fds=hard,
            first_port=ports[0] if len(ports) == 2 else None,
            last_port=ports[1] if len(ports) == 2 else None,
            queue=_number("/proc/sys/net/core/somaxconn"),
            system_files=_number("/proc/sys/fs/file-max"),
            tracked=_number("/proc/sys/net/netfilter/nf_conntrack_max"),
            free_kb=int(memory[0]) if memory else None,
        )


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _numbers(path: str) -> list[int]:
    return [int(word) for word in _text(path).split()]


def _number(path: str) -> int | None:
    numbers = _numbers(path)
    return numbers[0] if len(numbers) == 1 else None


def raise_fd_limit() -> None:
    """Let this process, and those that it starts, open as many files as it may allow itself."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def shortages(machine: Machine, users: int, processes: int, host: str, serving: bool) -> list[str]:
    """Return what stands in the way of so many users, and what to do about it; nothing if nothing does.

    :param processes: of locust on this machine, which share the users.
    :param host: that they connect to.
    :param serving: whether the server runs on this machine, too.
    """
    found = []
    a_process = users if serving else -(-users // max(1, processes))
    needed = a_process + SPARE_FDS
    if machine.hard_fds < needed:
        found.append(
            f"A process may open {machine.hard_fds:,} files, and needs {needed:,}: run `ulimit -n {needed}` as root, "
            f"or raise `nofile` in /etc/security/limits.conf (a service: LimitNOFILE={needed}; a container: --ulimit "
            f"nofile={needed})"
        )
    everywhere = users * (1 + serving) + SPARE_FDS
    if machine.system_files is not None and machine.system_files < everywhere:
        found.append(
            f"The system may open {machine.system_files:,} files, and needs {everywhere:,}: "
            f"`sysctl -w fs.file-max={everywhere}`"
        )
    if machine.first_port is not None and machine.last_port is not None:
        ports = machine.last_port - machine.first_port + 1
        if ports < users:
            found.append(
                f"{ports:,} ports are free for connections to {urlsplit(host).netloc or host}, and {users:,} are "
                "needed: "
                "`sysctl -w net.ipv4.ip_local_port_range='1024 65535'`; beyond 64,511, let workers on other machines "
                "connect, or the server listen on several ports"
            )
    if serving and machine.queue is not None and machine.queue < min(users, QUEUE):
        found.append(
            f"{machine.queue} connections may wait to be accepted, and {QUEUE} may come at once: "
            f"`sysctl -w net.core.somaxconn={QUEUE}`, or a lower --spawn-rate"
        )
    if machine.tracked is not None and machine.tracked < users + SPARE_FDS:
        found.append(
            f"The firewall tracks {machine.tracked:,} connections: `sysctl -w "
            f"net.netfilter.nf_conntrack_max={users * 2 + SPARE_FDS}`"
        )
    if machine.free_kb is not None and machine.free_kb < users * KB_A_USER:
        found.append(
            f"{machine.free_kb >> 10:,} MB of memory are free, and {users * KB_A_USER >> 10:,} MB may be needed: fewer "
            "users, or workers on other machines"
        )
    return found
