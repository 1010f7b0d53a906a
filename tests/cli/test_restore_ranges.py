#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Restores from an S3 server by several ranges at once: connections that break, an object that is replaced meanwhile,
memory."""
import glob
import json
import os
import random
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import LUNARK, Case, describe, environment, main  # noqa: E402

MIB = 1 << 20


class Ranges(Case):
    def setUp(self):
        super().setUp()
        self.server = self.s3()
        self.server.bucket("bucket")
        self.tree, self.into = self.path("src"), self.path("into")
        rng = random.Random(5)
        for number in range(6):
            self.write(f"src/random {number}", rng.randbytes(4 * MIB))
            self.write(f"src/text {number}", b"some text that repeats %d\n" % number * 40000)
        self.lunark("backup", "files", self.tree, "--to", self.server.url("bucket", "p"), "--name", "n",
                    env=self.server.env())

    def restore(self, url, *args, **more):
        subprocess.run(["rm", "-rf", self.into], check=True)
        return self.lunark("restore", "--from", url, "--into", self.into, *args, env=self.server.env(), **more)

    def requests(self, name="log"):
        with open(self.path(name), encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
        return [{k.lower(): v for k, v in line["headers"]}.get("range") for line in lines
                if line["method"] == "GET" and ".tar.gz" in line["path"]]

    def size(self):
        (key,) = [key for key in self.server.objects("bucket") if key.endswith("Z.tar.gz")]
        with self.server.read("bucket", key) as file:
            return len(file.read())

    def test_whole(self):
        self.restore(self.between(self.server, "bucket", []))
        self.assertEqual(describe(self.tree), describe(self.into + self.tree))
        ranges = self.requests()
        self.assertEqual(len(ranges), len(set(ranges)))
        self.assertEqual("bytes=0-2097151", ranges[0])
        self.assertIn("bytes=2097152-4194303", ranges)

    def other_store(self, kind, url):
        env = {k: v for k, v in self.serve(kind).env.items() if k.startswith(("AWS_", "AZURE_", "STORAGE_", "GOOGLE_"))}
        self.lunark("backup", "files", self.tree, "--to", url, "--name", "n", env=env)
        self.lunark("restore", "--from", url, "--into", self.into, env=env)
        self.assertEqual(describe(self.tree), describe(self.into + self.tree))

    def test_azure(self):
        self.other_store("azurite", "azure://bucket/p")

    def test_google(self):
        self.other_store("fakegcs", "gs://bucket/p")

    def test_connections_that_break(self):
        get = {"method": "GET", "path": r"\.tar\.gz"}
        steps = [{"match": get, "times": 4, "forward": True, "close_after": 700000},
                 {"match": get, "times": 2, "forward": True, "reset_after": 1},
                 {"match": get, "times": 2, "drop": True}, {"match": get, "times": 1, "status": 503}]
        self.restore(self.between(self.server, "bucket", steps))
        self.assertEqual(describe(self.tree), describe(self.into + self.tree))
        self.assertRegex(" ".join(self.requests()), r"bytes=[1-9]\d{5}-2097151 ")

    def test_replaced_while_it_is_read(self):
        get = {"method": "GET", "path": r"\.tar\.gz", "header": {"range": "bytes=8388608-"}}
        steps = [{"match": get, "times": 1, "forward": True, "headers": {
            "ETag": '"another"', "Content-Range": f"bytes 8388608-10485759/{self.size()}"}}]
        failed = self.restore(self.between(self.server, "bucket", steps), status=1)
        self.assertRegex(failed.stderr, r"\S+ was replaced by another object while it was read")
        self.assertEqual([], glob.glob(self.into + "/**/.lunark-*", recursive=True, include_hidden=True))

    def test_memory_with_slow_disk(self):
        code = ("import os, resource, subprocess, sys; r = subprocess.run(sys.argv[1:]).returncode; "
                "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10); sys.exit(r)")
        done = subprocess.run([sys.executable, "-c", code, LUNARK, "restore", "--from", self.server.url("bucket", "p"),
                               "--into", self.into, "--limit-rate", "30M"], env=environment(**self.server.env()),
                              stdout=subprocess.PIPE, check=True)
        self.assertLess(int(done.stdout), 64)


if __name__ == "__main__":
    main()
