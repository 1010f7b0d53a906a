#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Comparisons with peers: medians, ratios and sizes, both sides in turn in one run.

run.py [local] [s3] [upload] [line] [restore] [verify] [memory] [cgroup] [start] [limits] [prune] [index]     (all of them without a name)

BENCH_TREE    the tree to back up (default /usr/share), read once before so that it is in the page cache
BENCH_ROUNDS  rounds of each pair (default 5)
BENCH_INPUT   GiB of input of the memory runs (default 4)
BENCH_BACKUPS how many backups are thinned out (default 10000)
BENCH_STREAM  MiB of the streams that are uploaded (default 2048)
Peers: tar, pigz, rclone 1.76 and restic 0.18 (./bootstrap bench fetches them), the AWS command line, and
real servers: versitygw, Azurite, fake-gcs-server.
"""
import glob
import os
import shutil
import statistics
import sys
import tempfile

import index
import prune
import upload
from measure import CACHE, ENV, LUNARK, RCLONE, ROUNDS, Failed, head, pair, row, run, size

import servers

RESTIC = os.path.join(CACHE, "restic-0.18/usr/bin/restic")
TREE = os.environ.get("BENCH_TREE", "/usr/share").rstrip("/")
INPUT = float(os.environ.get("BENCH_INPUT", "4"))
MEMORY_GROUP = "/sys/fs/cgroup/memory"


class S3:
    """versitygw over a folder, ended by pid."""

    def __init__(self, scratch, *options):
        self.servers = servers.Servers(os.path.join(scratch, "s3"))
        os.makedirs(self.servers.scratch, exist_ok=True)
        self.servers.versitygw(["ours", "theirs"], *options)
        found = self.servers.env
        self.data, self.endpoint = found["LUNARK_TEST_S3_DATA"], found["AWS_ENDPOINT_URL"]
        access, secret, region = (found[n] for n in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"))
        ENV.update(AWS_ACCESS_KEY_ID=access, AWS_SECRET_ACCESS_KEY=secret, AWS_REGION=region,
                   RESTIC_PASSWORD="bench", RESTIC_CACHE_DIR=os.path.join(scratch, "restic-cache"),
                   RCLONE_CONFIG="/dev/null", RCLONE_CONFIG_B_TYPE="s3", RCLONE_CONFIG_B_PROVIDER="Other",
                   RCLONE_CONFIG_B_ENDPOINT=self.endpoint, RCLONE_CONFIG_B_ACCESS_KEY_ID=access,
                   RCLONE_CONFIG_B_SECRET_ACCESS_KEY=secret, RCLONE_CONFIG_B_REGION=region,
                   RCLONE_CONFIG_B_NO_CHECK_BUCKET="true")
        self.ours = f"s3://ours/b?endpoint={self.endpoint}"

    def clean(self):
        for bucket in ("ours", "theirs"):
            shutil.rmtree(os.path.join(self.data, bucket), ignore_errors=True)
            os.mkdir(os.path.join(self.data, bucket))

    def stop(self):
        self.servers.stop()


def backup(url, level="balanced"):
    return f"{LUNARK} backup files {TREE} --to '{url}' --name t --compress {level} --no-latest --progress none"


TAR = f"tar --format=posix -cf - -C / {TREE.lstrip('/')}"


def bench_local(scratch):
    head("To a local store", "level", "lunark s", "CPU s", "peer", "peer s", "times as fast", "size against the peer's")
    for level, peer, wanted in (("balanced", 6, 2.3), ("fast", 1, 2.75)):
        store, file = os.path.join(scratch, "local"), os.path.join(scratch, "peer.tar.gz")

        def clean():
            # Moved, not deleted: the disk would be busy with freeing blocks while the next one is timed.
            for path in (store, file):
                if os.path.exists(path):
                    os.rename(path, tempfile.mktemp(prefix="old-", dir=scratch))
        # pair() cleans before each command, so the sizes are taken from a run of each afterwards.
        ours, theirs, cpu = pair(backup(store, level), f"{TAR} | pigz -{peer} > {file}", clean=clean)
        run(f"{TAR} | pigz -{peer} > {file}")
        run(backup(store, level))
        ratio = size(f"{store}/t/t-*.tar.gz") / size(file)
        row(level, f"{ours:.2f}", f"{cpu:.2f}", f"tar, pigz -{peer}", f"{theirs:.2f}",
            f"**{theirs / ours:.2f}** (wanted {wanted})", f"{(ratio - 1) * 100:+.2f} %")
        clean()


def bench_s3(scratch):
    head("To an S3 server on loopback (versitygw)", "peer", "lunark s", "CPU s", "peer s", "times as fast")
    server = S3(scratch)
    try:
        ours, theirs, cpu = pair(backup(server.ours), f"{TAR} | pigz -6 | {RCLONE} rcat b:theirs/t.tar.gz",
                                 clean=server.clean)
        row("tar, pigz -6, rclone rcat", f"{ours:.2f}", f"{cpu:.2f}", f"{theirs:.2f}",
            f"**{theirs / ours:.2f}** (wanted 2.0)")
        mine, other = [], []
        for _ in range(ROUNDS):
            server.clean()
            mine.append(run(backup(server.ours))[0])
            server.clean()
            repository = f"s3:{server.endpoint}/theirs/r"
            run([RESTIC, "-q", "-r", repository, "init"])
            other.append(run([RESTIC, "-q", "-r", repository, "backup", TREE])[0])
        ours, theirs = statistics.median(mine), statistics.median(other)
        row("restic backup, first run", f"{ours:.2f}", "", f"{theirs:.2f}", f"**{theirs / ours:.2f}** (wanted over 1)")
    finally:
        server.stop()


def restore_pair(what, ours, theirs, into, wanted):
    def clean():
        shutil.rmtree(into)
        os.mkdir(into)
    ours, theirs, cpu = pair(ours, theirs, clean=clean)
    row(what, f"{ours:.2f}", f"{cpu:.2f}", f"{theirs:.2f}", f"**{theirs / ours:.2f}** (wanted {wanted})")


def bench_restore(scratch):
    head("Restore into a memory file system", "from, peer", "lunark s", "CPU s", "peer s", "times as fast")
    store = os.path.join(scratch, "restore")
    run(backup(store))
    archive = glob.glob(f"{store}/t/t-*.tar.gz")[0]
    into = tempfile.mkdtemp(prefix="lunark-bench.", dir="/dev/shm")
    server = S3(scratch)
    try:
        restore = f"{LUNARK} restore --item t --into {into} --progress none --from"
        restore_pair("local store, tar xzf", f"{restore} '{store}'", f"tar xzf {archive} -C {into} --force-local", into,
                     2.0)
        run(backup(server.ours))
        key = os.path.relpath(glob.glob(f"{server.data}/ours/b/t/t-*.tar.gz")[0], server.data)
        restore_pair("S3, rclone cat and tar xz", f"{restore} '{server.ours}'",
                     f"{RCLONE} cat b:{key} | tar xz -C {into}", into, 2.0)
        repository = f"-q -r s3:{server.endpoint}/theirs/r"
        run(f"{RESTIC} {repository} init && {RESTIC} {repository} backup {TREE}")
        restore_pair("S3, restic restore", f"{restore} '{server.ours}'",
                     f"{RESTIC} {repository} restore latest --target {into}", into, "1.0")
    finally:
        server.stop()
        shutil.rmtree(into)


def bench_verify(scratch):
    head("Verify a local archive", "what", "lunark s", "CPU s", "peak MiB", "peer", "peer s", "times as fast")
    store = os.path.join(scratch, "verify")
    run(backup(store))
    archive = glob.glob(f"{store}/t/t-*.tar.gz")[0]
    ours = f"{LUNARK} verify {archive} --progress none"
    for peer in (f"gzip -t {archive}", f"pigz -t {archive}", f"pigz -t {archive} && sha256sum {archive}"):
        mine, theirs, cpu = pair(f"{ours} --data all", peer)
        peak = run(f"exec {ours} --data all", watch=True)[2]
        row("--data all", f"{mine:.2f}", f"{cpu:.2f}", f"{peak / 1024:.1f}", f"`{peer.replace(archive, 'FILE')}`", f"{theirs:.2f}",
            f"**{theirs / mine:.2f}**")
    for more in ("", "--data 5%"):
        seconds, cpu, peak = run(f"exec {ours} {more}", watch=True)
        row(more or "quick", f"{seconds:.2f}", f"{cpu:.2f}", f"{peak / 1024:.1f}", "", "", "")


def big_input(scratch):
    """Files of INPUT GiB in all: copies of the start of the tree's tar, and as much that does not compress."""
    into = os.path.join(scratch, "input")
    os.makedirs(into)
    run(f"{TAR} 2>/dev/null | head -c 512M > {into}/base || true")
    for number in range(int(INPUT * 1024 / 512) - 1):
        source = f"{into}/base" if number % 2 == 0 else "/dev/urandom"
        run(f"head -c 512M {source} > {into}/{number}")
    return into


def bench_memory(scratch):
    head(f"Peak memory with {INPUT:g} GiB of input, default settings", "store", "peak MiB", "seconds", "wanted")
    source = big_input(scratch)
    server = S3(scratch)
    try:
        for name, url in (("local", os.path.join(scratch, "m")), ("s3", server.ours)):
            command = [LUNARK, "backup", "files", source, "--to", url, "--name", "t", "--no-latest", "--progress", "none"]
            seconds, _, peak = run(command, watch=True)
            row(name, f"**{peak / 1024:.1f}**", f"{seconds:.1f}", "at most 64")
            command = [LUNARK, "restore", "--from", url, "--item", "t", "--into", os.path.join(scratch, "back"),
                       "--progress", "none"]
            seconds, _, peak = run(command, watch=True)
            row(name + ", restore", f"**{peak / 1024:.1f}**", f"{seconds:.1f}", "at most 64")
            shutil.rmtree(os.path.join(scratch, "back"))
    finally:
        server.stop()
        shutil.rmtree(source)


def bench_cgroup(scratch):
    head(f"Under a cgroup limit of 96 MiB with {INPUT:g} GiB of input", "store", "ends with", "peak of the group MiB",
         "seconds")
    group = f"{MEMORY_GROUP}/lunark-bench-{os.getpid()}"
    v2 = not os.path.exists(f"{MEMORY_GROUP}/memory.limit_in_bytes")
    if v2:
        group = f"/sys/fs/cgroup/lunark-bench-{os.getpid()}"
    try:
        os.mkdir(group)
        with open(f"{group}/{'memory.max' if v2 else 'memory.limit_in_bytes'}", "w") as limit:
            limit.write(str(96 << 20))
    except OSError as problem:
        row("", f"not run: {problem}", "", "")
        return
    source = big_input(scratch)
    server = S3(scratch)

    def enter():
        with open(f"{group}/cgroup.procs", "w") as procs:
            procs.write(str(os.getpid()))
    try:
        for name, url in (("local", os.path.join(scratch, "m")), ("s3", server.ours)):
            command = [LUNARK, "backup", "files", source, "--to", url, "--name", "t", "--no-latest", "--progress", "none"]
            seconds, _, _ = run(command, before=enter)
            with open(f"{group}/{'memory.peak' if v2 else 'memory.max_usage_in_bytes'}") as peak:
                used = int(peak.read())
            row(name, "0", f"{used / 1048576:.1f} (page cache included)", f"{seconds:.1f}")
    finally:
        server.stop()
        shutil.rmtree(source)
        os.rmdir(group)


def bench_start(scratch):
    head("Start", "what", "median", "wanted")
    times = sorted(run([LUNARK, "--version"])[0] for _ in range(40))
    row("lunark --version", f"**{times[20] * 1000:.1f} ms**", "under 10 ms")
    script = os.path.join(scratch, "empty.lua")
    with open(script, "w") as file:
        file.write("")
    times = sorted(run([LUNARK, "run", script])[0] for _ in range(20))
    row("lunark run of an empty script", f"{times[10] * 1000:.1f} ms", "")
    with open(script, "w") as file:
        file.write("require('lunark.task').sleep(1)")
    row("its resident memory", f"**{run([LUNARK, 'run', script], watch=True)[2] / 1024:.1f} MiB**", "under 16 MiB")


def bench_limits(scratch):
    head("How far from the limit", "what", "seconds", "CPU s")
    tar = os.path.join(scratch, "tree.tar")
    run(f"{TAR} > {tar}")
    row("tar of the tree to /dev/null, through a pipe", *(f"{v:.2f}" for v in run(f"{TAR} | cat > /dev/null")[:2]))
    for level in ("none", "fast", "balanced"):
        script = os.path.join(scratch, "limit.lua")
        with open(script, "w") as file:
            file.write(f'local stream = require "lunark.stream"\nprint(assert(stream.file("{tar}"):gzip{{level='
                       f'"{level}"}}:discard()))')
        row(f"gzip stage alone, {level}, all cores", *(f"{v:.2f}" for v in
            run([LUNARK, "run", "--allow", f"read={scratch}", script])[:2]))
    os.unlink(tar)


def bench_index(scratch):
    server = S3(scratch, "--keep-alive")
    try:
        index.bench(scratch, server)
    finally:
        server.stop()


def bench_prune(scratch):
    server = S3(scratch)
    try:
        prune.bench(scratch, server)
    finally:
        server.stop()


def main():
    benches = {"local": bench_local, "s3": bench_s3, "upload": upload.loopback, "line": upload.line, "restore": bench_restore,
               "verify": bench_verify, "memory": bench_memory,
               "cgroup": bench_cgroup, "start": bench_start, "limits": bench_limits, "prune": bench_prune,
               "index": bench_index}
    names = sys.argv[1:] or list(benches)
    for name in names:
        if name not in benches:
            sys.exit(f"bench: {name}: one of {' '.join(benches)} expected")
    run(f"{TAR} > /dev/null")
    print(f"Tree {TREE}, {ROUNDS} rounds, {os.cpu_count()} CPUs; medians.")
    for name in names:
        scratch = tempfile.mkdtemp(prefix="lunark-bench.")
        try:
            benches[name](scratch)
        except Failed as problem:
            print(f"{name}: {problem}")
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
