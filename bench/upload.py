# SPDX-License-Identifier: MIT
"""A stream that can't be compressed, into stores: lunark, `rclone rcat` and `aws s3 cp -`, each as it comes, in turn.
Everything is in memory: no disk takes part."""
import os
import shutil
import statistics
import tempfile

from link import FAR, Line
from measure import CACHE, ENV, LUNARK, RCLONE, ROOT, ROUNDS, Failed, head, row, run

import servers

STREAM = int(os.environ.get("BENCH_STREAM", "2048"))
AWS = os.path.join(CACHE, "awscli-1.46.3", "bin", "aws")
DELAY = 0.010  # seconds, each way
# fake-gcs-server hashes all that an upload has with every chunk: a long stream would measure only that.
GCS_STREAM = min(STREAM, 256)
KINDS = {"s3": "versitygw", "azure": "azurite", "gs": "fakegcs"}
# Real stores keep connections open.
OPTIONS = {"versitygw": ("--keep-alive",)}


def peers(kind, env, source):
    """The commands that store `source`, by name."""
    base = {"s3": "s3://bench", "azure": "azure://bench", "gs": "gs://bench"}[kind]
    script = os.path.join(ROOT, "bench", "upload.lua")
    allow = " ".join(f"--allow '{word}=*'" for word in ("exec", "net", "read", "env"))
    remote = {"RCLONE_CONFIG": "/dev/null"}
    if kind == "s3":
        remote.update(
            RCLONE_CONFIG_B_TYPE="s3", RCLONE_CONFIG_B_PROVIDER="Other", RCLONE_CONFIG_B_ENDPOINT=env["AWS_ENDPOINT_URL"],
            RCLONE_CONFIG_B_ACCESS_KEY_ID=env["AWS_ACCESS_KEY_ID"],
            RCLONE_CONFIG_B_SECRET_ACCESS_KEY=env["AWS_SECRET_ACCESS_KEY"],
            RCLONE_CONFIG_B_REGION=env["AWS_REGION"], RCLONE_CONFIG_B_NO_CHECK_BUCKET="true")
    elif kind == "azure":
        remote.update(
            RCLONE_CONFIG_B_TYPE="azureblob", RCLONE_CONFIG_B_ACCOUNT=env["AZURE_STORAGE_ACCOUNT"],
            RCLONE_CONFIG_B_KEY=env["AZURE_STORAGE_KEY"], RCLONE_CONFIG_B_ENDPOINT=env["AZURE_STORAGE_BLOB_ENDPOINT"])
    else:
        remote.update(
            RCLONE_CONFIG_B_TYPE="googlecloudstorage", RCLONE_CONFIG_B_ANONYMOUS="true",
            RCLONE_CONFIG_B_ENDPOINT=env["LUNARK_TEST_GCS_URL"] + "/storage/v1/",
            RCLONE_CONFIG_B_BUCKET_POLICY_ONLY="true")
    ENV.update(remote)
    found = {
        "lunark": f"exec {LUNARK} run {allow} {script} {base} {source}",
        "rclone rcat": f"cat {source} | {RCLONE} rcat b:bench/theirs.bin",
    }
    if kind == "s3":
        found["aws s3 cp -"] = f"cat {source} | {AWS} s3 cp - s3://bench/aws.bin --endpoint-url {env['AWS_ENDPOINT_URL']}"
    return found


def medians(commands, clean):
    """Seconds of each, and lunark's own CPU seconds and peak KiB. The first round warms up."""
    seconds, cpus, peak = {name: [] for name in commands}, [], 0
    for number in range(ROUNDS + 1):
        for name, command in commands.items():
            clean()
            took, cpu, high = run(command, watch=name == "lunark")
            if number == 0:
                continue
            seconds[name].append(took)
            if name == "lunark":
                cpus.append(cpu)
                peak = max(peak, high)
    return {name: statistics.median(list_) for name, list_ in seconds.items()}, statistics.median(cpus), peak


def compare(kind, server, source, size):
    commands = peers(kind, server.env, source)
    ENV.update({k: v for k, v in server.env.items() if k.startswith(("AWS_", "AZURE_", "STORAGE_"))})

    def clean():
        # The pages of what was stored before are not this one's to free.
        data = server.env.get("LUNARK_TEST_S3_DATA")
        if data:
            for name in os.listdir(os.path.join(data, "bench")):
                path = os.path.join(data, "bench", name)
                (shutil.rmtree if os.path.isdir(path) else os.unlink)(path)
    try:
        took, cpu, peak = medians(commands, clean)
    except Failed as problem:
        row(kind, f"{size} MiB", str(problem), "", "", "", "", "")
        return
    ours = took.pop("lunark")
    for name, theirs in took.items():
        row(f"{kind} ({KINDS[kind]})", f"{size} MiB", f"{ours:.2f}", f"{cpu:.2f}", f"{peak / 1024:.1f}", name,
            f"{theirs:.2f}", f"**{theirs / ours:.2f}**")


def both(title, host, line=None):
    head(title, "store", "stream", "lunark s", "CPU s", "peak MiB", "peer", "peer s", "times as fast")
    scratch = tempfile.mkdtemp(prefix="lunark-bench.", dir="/dev/shm")
    try:
        for kind, program in KINDS.items():
            size = GCS_STREAM if kind == "gs" else STREAM
            source = os.path.join(scratch, f"{size}")
            if not os.path.exists(source):
                run(f"head -c {size}M /dev/urandom > {source}")
            place = os.path.join(scratch, program)
            os.mkdir(place)
            server = servers.Servers(place, host)
            try:
                if line:
                    with line.inside(line.far):
                        getattr(server, program)(["bench"], *OPTIONS.get(program, ()))
                    with line.inside(line.near):
                        compare(kind, server, source, size)
                else:
                    getattr(server, program)(["bench"], *OPTIONS.get(program, ()))
                    compare(kind, server, source, size)
            finally:
                server.stop()
                shutil.rmtree(place)
    finally:
        shutil.rmtree(scratch)


def loopback(_):
    both("A stream that can't be compressed, to servers on loopback (wanted: 1.0)", "127.0.0.1")


def line(_):
    try:
        between = Line(DELAY)
    except OSError as problem:
        head("Over a line with a round trip", "")
        row(f"not run: {problem}")
        return
    try:
        both(f"The same over a line with a round trip of {DELAY * 2000:.0f} ms (wanted: 2.0 times rclone)", FAR, between)
    finally:
        between.close()
