#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs libFuzzer's targets, one after the other: run.py [--seconds N] [TARGET...].

What a run learns stays in build/fuzz/corpus/TARGET; an input that breaks something is kept in build/fuzz/found.
`--minimize` writes the smallest set of inputs with the same coverage into tests/fuzz/corpus instead."""
import argparse
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, "build", "fuzz")
CORPUS = os.path.join(ROOT, "tests", "fuzz", "corpus")
MAX_LENGTH = {"gunzip": 65536, "check": 32768, "index": 16384, "extract": 32768}  # others: 8,192
LUA = ("answers", "manifest", "xml")


def targets():
    return sorted(os.path.basename(path)[:-2] for path in glob.glob(os.path.join(ROOT, "tests", "fuzz", "*.c")))


def environment():
    env = dict(os.environ, LUNARK_ROOT=ROOT)
    # Freed memory is kept back for a while; with less of it the process stays small.
    env["ASAN_OPTIONS"] = "quarantine_size_mb=16:detect_leaks=1:" + env.get("ASAN_OPTIONS", "")
    env["UBSAN_OPTIONS"] = "print_stacktrace=1"
    return env


def command(target, *options):
    more = []
    if target in LUA:
        more.append("-detect_leaks=0")  # a Lua state holds more after each input, and looking for leaks takes longer than that
    words = os.path.join(ROOT, "tests", "fuzz", target + ".dict")
    if os.path.exists(words):
        more.append("-dict=" + words)
    return [os.path.join(BUILD, "fuzz_" + target), *options, *more, "-timeout=60", "-rss_limit_mb=1500",
            f"-max_len={MAX_LENGTH.get(target, 8192)}"]


def replay(target):
    """Runs the inputs of the repository: the finished process, with all output as text."""
    return subprocess.run(command(target, "-runs=0") + [os.path.join(CORPUS, target)], env=environment(), text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace")


def fuzz(target, seconds):
    """Runs a target for that long; True if nothing was found."""
    learned, found = os.path.join(BUILD, "corpus", target), os.path.join(BUILD, "found")
    os.makedirs(learned, exist_ok=True)
    os.makedirs(found, exist_ok=True)
    log = os.path.join(BUILD, f"{target}.log")
    with open(log, "wb") as out:
        status = subprocess.run(command(target, f"-max_total_time={seconds}", f"-artifact_prefix={found}/{target}-",
                                        "-print_final_stats=1") + [learned, os.path.join(CORPUS, target)],
                                env=environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=out).returncode
    with open(log, encoding="utf-8", errors="replace") as file:
        text = file.read()
    runs = re.search(r"number_of_executed_units: (\d+)", text)
    print(f"{target}: {runs.group(1) if runs else '?'} inputs in {seconds} s, "
          f"{'nothing found' if status == 0 else f'ended with {status}; see {log} and {found}'}", flush=True)
    return status == 0


def minimize(target):
    learned, small = os.path.join(BUILD, "corpus", target), tempfile.mkdtemp()
    subprocess.run(command(target, "-merge=1") + [small, os.path.join(CORPUS, target), learned], env=environment(),
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for name in os.listdir(small):
        shutil.copy(os.path.join(small, name), os.path.join(CORPUS, target, name))
    shutil.rmtree(small)
    return True


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--minimize", action="store_true")
    parser.add_argument("targets", nargs="*", default=[])
    args = parser.parse_args()
    chosen = args.targets or targets()
    clean = [minimize(target) if args.minimize else fuzz(target, args.seconds) for target in chosen]
    return 0 if all(clean) else 1


if __name__ == "__main__":
    sys.exit(main())
