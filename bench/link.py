# SPDX-License-Identifier: MIT
"""A long line inside of this machine: two network namespaces, joined by a program that holds every packet back. The
kernel's own TCP runs over it, with segments of 1,460 bytes, so windows grow as they do between places. Needs root."""
import collections
import contextlib
import ctypes
import fcntl
import os
import select
import struct
import subprocess
import time

TUNSETIFF, TUNSETOFFLOAD, TUNSETVNETHDRSZ = 0x400454CA, 0x400454D0, 0x400454D8
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
OFFLOADS = 0x01 | 0x02 | 0x04  # checksums, and large segments of IPv4 and IPv6: the kernel cuts none in here
CLONE_NEWNET = 0x40000000
HEADER = 10  # bytes of virtio's header before each packet
LIBC = ctypes.CDLL(None, use_errno=True)
NEAR, FAR = "10.213.0.1", "10.213.0.2"


def enter(namespace):
    """Moves this process into the network namespace of an open file."""
    if LIBC.setns(namespace, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def make_end(address):
    """(file of a new namespace, file of its end of the line). This process is left in the namespace."""
    if LIBC.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare: a network namespace needs root")
    space = os.open("/proc/self/ns/net", os.O_RDONLY)
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"line", IFF_TUN | IFF_NO_PI | IFF_VNET_HDR))
    fcntl.ioctl(tun, TUNSETVNETHDRSZ, struct.pack("i", HEADER))
    fcntl.ioctl(tun, TUNSETOFFLOAD, OFFLOADS)
    for words in (("link", "set", "lo", "up"), ("addr", "add", address + "/30", "dev", "line"),
                  ("link", "set", "line", "txqueuelen", "100000", "up")):
        subprocess.run(["ip", *words], check=True)
    return space, tun


def forward(ends, delay):
    """Carries packets until it is ended by a signal."""
    poller, waiting = select.poll(), [collections.deque(), collections.deque()]
    for end in ends:
        poller.register(end, select.POLLIN)
    while True:
        due = [line[0][0] for line in waiting if line]
        pause = max(0, min(due) - time.monotonic()) * 1000 if due else None
        ready = [fd for fd, _ in poller.poll(pause)]
        now = time.monotonic()
        for side, end in enumerate(ends):
            line = waiting[side]
            if end in ready:
                with contextlib.suppress(BlockingIOError):
                    for _ in range(64):
                        line.append((now + delay, os.read(end, 70000)))
            while line and line[0][0] <= now:
                with contextlib.suppress(OSError):  # a line may lose packets
                    os.write(ends[1 - side], line.popleft()[1])


class Line:
    """near and far: namespaces; programs are started in them with `inside`. `delay`: seconds, each way."""

    def __init__(self, delay):
        home = os.open("/proc/self/ns/net", os.O_RDONLY)
        try:
            self.near, one = make_end(NEAR)
            self.far, other = make_end(FAR)
        finally:
            enter(home)
            os.close(home)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                forward((one, other), delay)
            finally:
                os._exit(1)
        os.close(one)
        os.close(other)

    @contextlib.contextmanager
    def inside(self, namespace):
        """What is started in here lives in that namespace."""
        home = os.open("/proc/self/ns/net", os.O_RDONLY)
        enter(namespace)
        try:
            yield
        finally:
            enter(home)
            os.close(home)

    def close(self):
        os.kill(self.pid, 15)
        os.waitpid(self.pid, 0)
        os.close(self.near)
        os.close(self.far)
