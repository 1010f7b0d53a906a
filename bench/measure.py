# SPDX-License-Identifier: MIT
"""What all benchmarks share: running both sides in turn, medians, tables."""
import glob
import os
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "support"))
from servers import CACHE  # noqa: E402

LUNARK = os.path.join(ROOT, "build/release/lunark")
RCLONE = os.path.join(CACHE, "rclone-1.76.0/rclone")
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))

# Peers may not start with a CA bundle of the machine in their environment; lunark gets the same one.
ENV = {k: v for k, v in os.environ.items() if k not in ("AWS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")}
ENV["LC_ALL"] = "C.UTF-8"


class Failed(Exception):
    pass


def high_water(pid):
    """Peak resident KiB of a process, 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1])
    except OSError:
        pass
    return 0


def run(command, watch=False, before=None):
    """Runs a shell command; (seconds, CPU seconds, peak KiB of its direct program when watched)."""
    if isinstance(command, str):
        command = ["bash", "-o", "pipefail", "-c", command]
    times = os.times()
    began = time.monotonic()
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(command, env=ENV, stdout=subprocess.DEVNULL, stderr=errors, preexec_fn=before)
        peak = 0
        if watch:
            while child.poll() is None:
                peak = max(peak, high_water(child.pid))
                time.sleep(0.01)
        status = child.wait()
        seconds = time.monotonic() - began
        if status != 0:
            errors.seek(0)
            raise Failed(f"{command} ended with {status}: {errors.read()[-2000:].decode(errors='replace')}")
    after = os.times()
    cpu = after.children_user + after.children_system - times.children_user - times.children_system
    return seconds, cpu, peak


def pair(ours, theirs, rounds=ROUNDS, clean=None):
    """Both in turn; medians of (ours, theirs) seconds, and our median CPU seconds. The first round warms up."""
    mine, other, cpus = [], [], []
    for number in range(rounds + 1):
        if number == 1:
            mine, other, cpus = [], [], []
        for command, into in ((ours, mine), (theirs, other)):
            if clean:
                clean()
            os.sync()  # what the one before left to be written is not this one's
            seconds, cpu, _ = run(command)
            into.append(seconds)
            if into is mine:
                cpus.append(cpu)
    return statistics.median(mine), statistics.median(other), statistics.median(cpus)


def row(*columns):
    print("| " + " | ".join(str(c) for c in columns) + " |", flush=True)


def head(title, *columns):
    print(f"\n## {title}\n")
    row(*columns)
    row(*("---" for _ in columns))


def size(pattern):
    return sum(os.path.getsize(p) for p in glob.glob(pattern))
