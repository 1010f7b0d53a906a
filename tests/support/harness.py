# SPDX-License-Identifier: MIT
"""What tests of the command share: a scratch folder, the command, trees to back up, a real S3 server.

Everything that is started is ended by pid, and the scratch folder is removed."""
import glob
import hashlib
import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

import manifests
import servers
from servers import CACHE, free_port  # noqa: F401

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, "build", os.environ.get("LUNARK_TEST_BUILD", "release"))
LUNARK = os.path.join(BUILD, "lunark")
FAULTY = os.path.join(ROOT, "tests", "support", "faulty.py")


def environment(**more):
    """The environment of the command: nothing of the machine's AWS settings or CA bundles, a home that is not there."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "LUNARK_TEST"))
           and k not in ("CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", "HOME", "XDG_CONFIG_HOME", "CLOUD_PROVIDER",
                         "BUCKET", "LUNARK_CREDENTIALS", "LUNARK_TO", "LUNARK_FROM")}
    env["LC_ALL"] = "C.UTF-8"
    env["AWS_EC2_METADATA_DISABLED"] = "true"  # no test leaves this machine
    env.update({k: str(v) for k, v in more.items() if v is not None})
    return env


# What moto is asked with: boto3, which is in its environment.
BOTO = """
import sys, boto3
call, bucket, argument = sys.argv[1:4]
s3 = boto3.client("s3")
if call == "create":
    s3.create_bucket(Bucket=bucket)
elif call == "objects":
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    print("\\n".join(o["Key"] for page in pages for o in page.get("Contents", [])))
elif call == "uploads":
    print("\\n".join(u["UploadId"] for u in s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])))
elif call == "get":
    sys.stdout.buffer.write(s3.get_object(Bucket=bucket, Key=argument)["Body"].read())
"""


class S3Server:
    """versitygw over a plain folder (buckets are folders, so what was stored can be looked at on disk); where no Go
    toolchain could build that, moto."""

    def __init__(self, scratch, *options):
        scratch = os.path.join(scratch, "s3")
        os.makedirs(scratch, exist_ok=True)
        self.servers = servers.Servers(scratch)
        self.first = "bucket"
        try:
            self.port = self.servers.versitygw([self.first], *options)
        except servers.Unavailable:
            if options:
                raise
            self.port = self.servers.moto([self.first])
        self.data = self.servers.env.get("LUNARK_TEST_S3_DATA")
        self.endpoint = self.servers.env["AWS_ENDPOINT_URL"]
        self.region = self.servers.env["AWS_REGION"]
        self.access = self.servers.env["AWS_ACCESS_KEY_ID"]
        self.secret = self.servers.env["AWS_SECRET_ACCESS_KEY"]

    def ask(self, call, bucket, argument=""):
        python = os.path.join(os.path.dirname(servers.MOTO), "python")
        return subprocess.run([python, "-c", BOTO, call, bucket, argument], env=self.servers.env, check=True,
                              stdout=subprocess.PIPE).stdout

    def bucket(self, name):
        if self.data:
            os.makedirs(os.path.join(self.data, name), exist_ok=True)
        elif name != self.first:
            self.ask("create", name)
        return name

    def url(self, bucket, prefix=""):
        return f"s3://{bucket}/{prefix}?endpoint={self.endpoint}&region={self.region}"

    def env(self):
        return {"AWS_ACCESS_KEY_ID": self.access, "AWS_SECRET_ACCESS_KEY": self.secret}

    def objects(self, bucket):
        """Keys that a client can see."""
        if not self.data:
            return sorted(self.ask("objects", bucket).decode().split())
        base = os.path.join(self.data, bucket)
        found = []
        for folder, folders, files in os.walk(base):
            folders[:] = [f for f in folders if f != ".sgwtmp"]  # uploads in flight
            found += [os.path.relpath(os.path.join(folder, f), base) for f in files]
        return sorted(found)

    def read(self, bucket, key):
        """An object as a file."""
        if self.data:
            return open(os.path.join(self.data, bucket, key), "rb")
        return io.BytesIO(self.ask("get", bucket, key))

    def uploads(self, bucket):
        """Multipart uploads that were begun and neither completed nor aborted."""
        if self.data:
            return glob.glob(os.path.join(self.data, bucket, ".sgwtmp", "multipart", "*", "*"))
        return self.ask("uploads", bucket).decode().split()

    def stop(self):
        self.servers.stop()


class Case(unittest.TestCase):
    """A test with a scratch folder in self.dir."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="lunark-test.")
        os.chmod(self.dir, 0o755)
        self.addCleanup(shutil.rmtree, self.dir, True)

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def write(self, name, data=b"", mode=0o644):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data if isinstance(data, bytes) else data.encode())
        os.chmod(path, mode)
        return path

    def s3(self, *options):
        server = S3Server(self.dir, *options)
        self.addCleanup(server.stop)
        return server

    def serve(self, kind, *args, **more):
        """The bucket `bucket` on a server of that kind; its servers.Servers."""
        running = servers.Servers(self.path())
        self.addCleanup(running.stop)
        getattr(running, kind)(["bucket"], *args, **more)
        return running

    def between(self, server, bucket, steps, prefix="p", log="log"):
        """The URL of a place in a bucket, through a server (faulty.py) that does these steps and writes a log, a file of
        that name."""
        script = self.write(log + ".steps", json.dumps(steps))
        child = subprocess.Popen([sys.executable, FAULTY, "--script", script, "--log", self.path(log), "--upstream",
                                  server.endpoint], env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(lambda: (child.stdin.close(), child.wait(10), child.stdout.close()))
        word, port = child.stdout.readline().split()
        self.assertEqual(b"port", word)
        return server.url(bucket, prefix).replace(server.endpoint, f"http://127.0.0.1:{int(port)}")

    def start(self, *args, env=None, **more):
        """The command as a child that is killed at the end of the test if it still lives."""
        more.setdefault("stdout", subprocess.PIPE)
        more.setdefault("stderr", subprocess.PIPE)
        more.setdefault("stdin", subprocess.DEVNULL)
        child = subprocess.Popen([LUNARK, *map(str, args)], env=environment(**(env or {})), **more)

        def end():
            if child.poll() is None:
                child.kill()
            child.wait()
            for pipe in (child.stdout, child.stderr):
                if pipe:
                    pipe.close()
        self.addCleanup(end)
        return child

    def lunark(self, *args, status=0, env=None, timeout=120, **more):
        """Runs the command to its end; asserts the exit status; the result has stdout and stderr as text."""
        began = time.time()
        child = self.start(*args, env=env, **more)
        try:
            out, err = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            child.kill()
            out, err = child.communicate()
            self.fail(f"lunark {' '.join(map(str, args))} took over {timeout} s\n{(out or b'').decode(errors='replace')}"
                      f"{(err or b'').decode(errors='replace')}")
        result = subprocess.CompletedProcess(child.args, child.returncode, (out or b"").decode(errors="replace"),
                                             (err or b"").decode(errors="replace"))
        if args and args[0] == "backup":
            stores = [args[i + 1] for i, word in enumerate(args[:-1]) if word == "--to"]
            manifests.collect([store for store in stores if os.path.isdir(store)] + [self.path("s3")], began)
        if status is not None:
            self.assertEqual(status, result.returncode,
                             f"lunark {' '.join(map(str, args))}\nstdout: {result.stdout}\nstderr: {result.stderr}")
        return result


def make_tree(base, seed=1, files=200, big=3 << 20):
    """A tree of every common kind of entry with reproducible content."""
    rng = random.Random(seed)
    os.makedirs(base)
    for number in range(files):
        folder = os.path.join(base, f"d{number % 13}", f"e{number % 7}")
        os.makedirs(folder, exist_ok=True)
        size = rng.choice((0, 1, 511, 512, 513, 1000, 4096, 20000))
        data = rng.randbytes(size) if number % 3 else (b"line %d of a text that repeats\n" % number) * (size // 30)
        with open(os.path.join(folder, f"file {number}.txt"), "wb") as file:
            file.write(data)
        os.utime(file.name, ns=(0, 1_600_000_000_000_000_000 + number * 1_000_000_007))
        os.chmod(file.name, rng.choice((0o600, 0o644, 0o755, 0o440)))
    with open(os.path.join(base, "big.bin"), "wb") as file:
        file.write(rng.randbytes(big) + b"x" * big)
    with open(os.path.join(base, "sparse.bin"), "wb") as file:
        file.seek(5 << 20)
        file.write(b"end")
    os.makedirs(os.path.join(base, "empty"))
    os.symlink("big.bin", os.path.join(base, "link"))
    os.symlink("nowhere/at all", os.path.join(base, "dangling"))
    os.link(os.path.join(base, "big.bin"), os.path.join(base, "zz hard link"))
    os.mkfifo(os.path.join(base, "fifo"))
    for name in ("ünïcode ☃", "with\nnewline", "x" * 255, "back\\slash", " lead", "-dash"):
        with open(os.path.join(base, name), "wb") as file:
            file.write(name.encode())
    with open(os.path.join(os.fsencode(base), b"not utf8 \xff\xfe"), "wb") as file:
        file.write(b"bytes")
    deep = os.path.join(base, *(["deep" * 20] * 5))
    os.makedirs(deep)
    with open(os.path.join(deep, "leaf"), "wb") as file:
        file.write(b"leaf")
    return base


def describe(base):
    """path -> what identifies the entry: type, mode, size, time, link target, SHA-256; for comparing two trees."""
    found = {}
    base = os.fsencode(base)
    first_of = {}
    for folder, folders, files in os.walk(base):
        for name in folders + files:
            path = os.path.join(folder, name)
            s = os.lstat(path)
            kind = s.st_mode >> 12
            entry = [kind, s.st_mode & 0o7777, s.st_uid, s.st_gid]
            if os.path.islink(path):
                entry = [kind, os.readlink(path)]
            elif os.path.isfile(path):
                with open(path, "rb") as file:
                    entry += [s.st_size, s.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest()]
                if s.st_nlink > 1:
                    entry.append(first_of.setdefault(s.st_ino, os.path.relpath(path, base)))
            elif os.path.isdir(path):
                entry.append(s.st_mtime_ns)
            found[os.path.relpath(path, base)] = entry
    return found


def load_json(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def main():
    """Runs the tests of the file; then every manifest that `lunark backup` wrote in them must be valid."""
    try:
        unittest.main(module=sys.modules["__main__"], verbosity=2)
    finally:
        wrong = manifests.check()
        for line in wrong:
            print("no valid manifest:", line)
        if wrong:
            sys.exit(1)
