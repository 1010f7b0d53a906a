#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the s3 provider wrote, the AWS command line lists and reads, and the other way round; hard names; long
listings; TLS, virtual hosts; and the command from backup to restore on MinIO."""
import argparse
import glob
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "support"))

import harness  # noqa: E402
import servers  # noqa: E402
from client_case import NAMES as OTHERS, PREFIX, ClientCase  # noqa: E402

AWS = os.path.join(servers.CACHE, "awscli-1.46.3", "bin", "aws")
LUARUN = os.path.join(harness.BUILD, "luarun")
NAMES = ["plain.txt", "with space/and more .txt", "a+b+c", "100%/50%25.txt", "neo4j-2020-06-16-12:32:57.tar.gz",
         "grün/日本語/ñ.txt", "e\u0301.txt", "a//b", "trailing.dot.", "trailing/dot./x", "it's \"q\" <&>.txt",
         "what?x=1&y#z", "~user/=,;!*()$@[]{}^`|", "\u2028line", "emoji-\U0001f4be", "-dash", "a\tb",
         "/".join(["n" * 120] * 8) + "/" + "m" * (1024 - len("names/") - 8 * 121)]
# Amazon's library for Python, which comes with moto: many objects in one process.
BOTO = """
import json, sys
import boto3
s3 = boto3.client("s3")
call, prefix, names = sys.argv[1], sys.argv[2], json.load(sys.stdin)
if call == "get":
    print(json.dumps([s3.get_object(Bucket="bucket", Key=prefix + name)["Body"].read().decode() for name in names]))
else:
    for name in names:
        s3.put_object(Bucket="bucket", Key=prefix + name, Body=("theirs: " + name).encode())
"""
# Amazon's library with metadata, many sizes, and uploads in parts.
OPENING = """
import hashlib, io, json, sys
import boto3
from boto3.s3.transfer import TransferConfig
s3, bucket = boto3.client("s3"), "lunark-test"
parts = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)
"""
WRITE = """
for one in json.load(open(sys.argv[1])):
    block = hashlib.sha256(one["key"].encode()).digest()
    body = (block * (one["size"] // 32 + 1))[:one["size"]]
    s3.upload_fileobj(io.BytesIO(body), bucket, sys.argv[2] + one["key"], {"Metadata": one["meta"]}, Config=parts)
"""
READ = """
found = []
for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=sys.argv[1]):
    for one in page.get("Contents", []):
        whole = s3.get_object(Bucket=bucket, Key=one["Key"])
        found.append({"key": one["Key"][len(sys.argv[1]):], "size": one["Size"], "meta": whole["Metadata"],
                      "sha256": hashlib.sha256(whole["Body"].read()).hexdigest()})
print(json.dumps(sorted(found, key=lambda one: one["key"].encode())))
"""
# Names that only a store without files takes.
ODD = ["a/../b", "./x", "../y", ".", "..", "\x01\x1f", "a\rb", "del\x7f", "\u00a0", " ", "+", "%2F"]
# MinIO keeps objects as files and refuses these.
NO_FILES = {"a//b"}


class Case(harness.Case):
    def setUp(self):
        super().setUp()
        self.servers = servers.Servers(self.dir)
        self.addCleanup(self.servers.stop)

    def start_server(self, name, *args, **more):
        servers.make_available(AWS, "awscli 1.46.3")
        return getattr(self.servers, name)(["bucket"], *args, **more)

    @property
    def url(self):
        return self.servers.env["AWS_ENDPOINT_URL"]

    def keys(self):
        return {name: self.servers.env[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}

    def to(self, prefix="", query=""):
        return f"s3://bucket/{prefix}?endpoint={self.url}{query}"

    def aws(self, *args, program=AWS, **more):
        """The AWS command line: what it printed."""
        env = dict(self.servers.env, AWS_CONFIG_FILE="/nonexistent", AWS_EC2_METADATA_DISABLED="true", LC_ALL="C.UTF-8")
        done = subprocess.run([program, *args], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False,
                              timeout=60, **more)
        self.assertEqual(0, done.returncode, done.stderr.decode())
        return done.stdout

    def program(self, *args):
        env = harness.environment(**self.keys())
        done = subprocess.run([LUARUN, "tests/provider/s3_names.lua", *args], cwd=ROOT, env=env, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120)
        self.assertEqual(0, done.returncode, done.stderr.decode())
        return json.loads(done.stdout)


class Names(Case):
    def both_ways(self, names):
        listed = self.write("names", json.dumps(names))
        self.program("write", self.to("names"), listed)
        pages = json.loads(self.aws("s3api", "list-objects-v2", "--bucket", "bucket", "--prefix", "names/"))
        self.assertEqual(sorted("names/" + name for name in names), sorted(one["Key"] for one in pages["Contents"]))
        python = os.path.join(os.path.dirname(servers.MOTO), "python")
        servers.make_available(python, "moto 5.2.5")
        texts = self.aws("-c", BOTO, "get", "names/", program=python, input=json.dumps(names).encode())
        self.assertEqual(["content of " + name for name in names], json.loads(texts))
        self.aws("-c", BOTO, "put", "other/", program=python, input=json.dumps(names).encode())
        found = self.program("read", self.to("other"))
        self.assertEqual(sorted(names, key=lambda name: name.encode()), [one["key"] for one in found])
        for one in found:
            self.assertEqual("theirs: " + one["key"], one["text"])

    def test_minio(self):
        self.start_server("minio")
        self.both_ways([name for name in NAMES if name not in NO_FILES])

    def test_moto(self):
        self.start_server("moto")
        self.both_ways(NAMES)

    def test_ten_thousand_objects_beside_many_others(self):
        self.start_server("versitygw")
        base = os.path.join(self.servers.env["LUNARK_TEST_S3_DATA"], "bucket")

        def fill(folder, count, pattern):
            os.makedirs(os.path.join(base, folder), exist_ok=True)
            for number in range(count):
                os.close(os.open(os.path.join(base, folder, pattern.format(number)), os.O_CREAT | os.O_WRONLY))
        fill("mine", 10001, "object-{:05d}")
        for folder in ("before", "min", "mine-not", "zz"):
            fill(folder, 25000, "{}")
        self.assertEqual({"count": 10001, "ordered": True}, self.program("count", self.to("mine")))


class Objects(ClientCase):
    """Sizes, metadata and names, each way, on all three servers."""
    scheme, PART = "s3", 5 << 20

    def theirs(self, program, *words):
        python = os.path.join(os.path.dirname(servers.MOTO), "python")
        servers.make_available(python, "moto 5.2.5")
        return subprocess.run([python, "-c", OPENING + program, *words], env=self.servers.env, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, timeout=120, check=True).stdout

    def each_way(self, server, names):
        self.maxDiff = None
        for writer in ("ours", "theirs"):
            self.servers = servers.Servers(self.path())
            self.addCleanup(self.servers.stop)
            getattr(self.servers, server)(["lunark-test"])
            file, expected = self.described(names)
            if writer == "ours":
                self.assertEqual(expected, self.ours("write", file))
                self.assertEqual(expected, json.loads(self.theirs(READ, PREFIX)))
            else:
                self.theirs(WRITE, file, PREFIX)
                self.assertEqual(expected, self.ours("read", file))
            self.servers.stop()
            for folder in ("data", "minio"):
                shutil.rmtree(self.path(folder), True)

    def test_moto(self):
        self.each_way("moto", OTHERS + ODD)

    FILES = [name for name in OTHERS if "//" not in name and name[-1] != "/" and len(name) < 256] + \
        ["/".join(["n" * 120] * 8) + "/" + "m" * (1024 - len(PREFIX) - 8 * 121)]

    def test_minio(self):
        self.each_way("minio", self.FILES)

    def test_versitygw(self):
        self.each_way("versitygw", self.FILES)


class Command(Case):
    """Backup, list and restore on MinIO."""

    def setUp(self):
        super().setUp()
        self.start_server("minio")
        self.tree = harness.make_tree(self.path("tree"), files=60, big=6 << 20)

    def lunark(self, *args, **more):
        return super().lunark(*args, env={**self.keys(), **more.pop("env", {})}, **more)

    def test_backup_list_restore(self):
        self.lunark("backup", "files", self.tree, "--name", "data", "--to", self.to("p"))
        listed = self.lunark("list", self.to("p")).stdout
        self.assertRegex(listed, r"data +\S+ +\S+.* ok ")
        self.lunark("restore", "--from", self.to("p"), "--item", "data", "--into", self.path("into"))
        self.assertEqual(harness.describe(self.tree), harness.describe(self.path("into") + self.tree))
        # What the other client finds is plain tar and gzip.
        lines = self.aws("s3", "ls", "--recursive", "s3://bucket/p/").decode().split("\n")
        (key,) = [line.split(None, 3)[3] for line in lines if "latest" in line]
        self.aws("s3", "cp", "s3://bucket/" + key, self.path("theirs.tar.gz"), "--no-progress")
        with tarfile.open(self.path("theirs.tar.gz")) as archive:
            self.assertIn(self.tree.lstrip("/") + "/big.bin", archive.getnames())

    def test_archives_of_the_other_client(self):
        archive = self.path("mine.tar.gz")
        subprocess.run(["tar", "czf", archive, "-C", self.tree, "big.bin", "empty"], check=True)
        self.aws("s3", "cp", archive, "s3://bucket/p/data/data-2026-01-31T020000Z.tar.gz", "--no-progress")
        self.assertIn("unverified", self.lunark("list", self.to("p")).stdout)
        self.lunark("restore", "--from", self.to("p"), "--item", "data", "--into", self.path("into"))
        with open(self.path("into/big.bin"), "rb") as ours, open(os.path.join(self.tree, "big.bin"), "rb") as theirs:
            self.assertTrue(ours.read() == theirs.read())

    def uploads(self):
        return glob.glob(self.path("minio/.minio.sys/multipart/*/*"))

    def test_ended_in_mid_upload(self):
        for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
            with open(os.path.join(self.tree, "noise"), "wb") as file:
                file.write(os.urandom(60 << 20))
            child = self.start("backup", "files", self.tree, "--name", "data", "--to", self.to("p"), "--limit-rate", "12M",
                               env=self.keys())
            end = time.monotonic() + 20
            while not any(len(os.listdir(folder)) > 1 for folder in self.uploads()):
                self.assertTrue(child.poll() is None and time.monotonic() < end)
                time.sleep(0.05)
            child.send_signal(number)
            _, err = child.communicate(timeout=25)
            self.assertEqual(status, child.returncode, err.decode())
            self.assertEqual([], self.uploads())
            self.assertNotIn("Contents", self.aws("s3api", "list-objects-v2", "--bucket", "bucket").decode())

    def test_encryption_and_class(self):
        for query, expected in (("&sse=AES256", "AES256"), ("&sse=aws:kms&sse_kms_key_id=lunark-test-key", "aws:kms")):
            prefix = expected.replace(":", "")
            to = self.to(prefix, query + "&storage_class=REDUCED_REDUNDANCY&copy_max=5M")
            self.lunark("backup", "files", self.tree, "--name", "data", "--to", to)
            pages = json.loads(self.aws("s3api", "list-objects-v2", "--bucket", "bucket", "--prefix", prefix))["Contents"]
            self.assertEqual(3, len(pages))
            for one in pages:
                head = json.loads(self.aws("s3api", "head-object", "--bucket", "bucket", "--key", one["Key"]))
                self.assertEqual((expected, "REDUCED_REDUNDANCY"), (head["ServerSideEncryption"], head["StorageClass"]))
            self.lunark("restore", "--from", to, "--item", "data", "--into", self.path("into-" + prefix))
            self.assertEqual(harness.describe(self.tree), harness.describe(self.path("into-" + prefix) + self.tree))
        failed = self.lunark("backup", "files", self.tree, "--name", "data", "--to", self.to("x", "&sse_kms_key_id=other"),
                             status=None)
        self.assertNotEqual(0, failed.returncode)
        self.assertIn("sse_kms_key_id", failed.stderr)


class Together(Case):
    """Runs that take the same key get the next second; none writes over another's."""

    def together(self, size):
        children = []
        for number in range(4):
            with open(self.write(f"{size}-{number}/file"), "wb") as file:
                file.write(os.urandom(size))
            children.append(self.start("backup", "files", self.path(f"{size}-{number}"), "--name", "n", "--to",
                                       self.to(f"p{size}"), "--json", env=self.keys()))
        stored = {}
        for child in children:
            out, err = child.communicate(timeout=60)
            self.assertEqual(0, child.returncode, err.decode())
            (item,) = json.loads(out)["items"]
            stored[item["key"]] = item["sha256"]
        self.assertEqual(4, len(stored), stored)
        for key, expected in stored.items():
            body = self.aws("s3", "cp", f"s3://bucket/p{size}/{key}", "-")
            self.assertEqual(expected, hashlib.sha256(body).hexdigest())

    def test_minio(self):
        self.start_server("minio")
        self.together(5000)
        self.together(12000000)

    def test_versitygw(self):
        self.start_server("versitygw")
        self.together(5000)
        self.together(12000000)


class Connections(Case):
    def setUp(self):
        super().setUp()
        self.write("tree/file", b"content")

    def backup(self, to, status=0, **env):
        return self.lunark("backup", "files", self.path("tree"), "--name", "n", "--to", to, status=status,
                           env={**self.keys(), **env})

    def test_a_ca_of_ones_own(self):
        self.servers.faulty(argparse.Namespace(script=None, upstream="versitygw", tls=True, bucket=["bucket"]))
        ca = self.servers.env["LUNARK_TEST_CA"]
        failed = self.backup(self.to(), status=3)
        self.assertRegex(failed.stderr, "certificate")
        self.assertIn("ca_file", failed.stderr)
        self.backup(self.to(), AWS_CA_BUNDLE=ca)
        self.backup(self.to("", f"&ca_file={ca}"))
        config = self.write("config", f"[default]\nca_bundle = {ca}\n")
        self.backup(self.to(), AWS_CONFIG_FILE=config)

    def test_virtual_hosts(self):
        port = self.start_server("versitygw", "--virtual-domain", "localhost")
        endpoint = f"http://localhost:{port}"
        self.backup(f"s3://bucket/p?endpoint={endpoint}&path_style=no")
        config = self.write("config", f"[default]\nendpoint_url = {endpoint}\ns3 =\n  addressing_style = virtual\n")
        self.backup("s3://bucket/q", AWS_CONFIG_FILE=config)
        found = os.listdir(os.path.join(self.servers.env["LUNARK_TEST_S3_DATA"], "bucket"))
        self.assertEqual(["p", "q"], sorted(name for name in found if not name.startswith(".")))


if __name__ == "__main__":
    harness.main()
