#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Google's own client and lunark on one bucket: each lists and reads what the other one wrote, and `lunark` restores
it. On both emulators. And a bucket with far more objects than are ours."""
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import unittest
import urllib.parse

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "support"))

import harness  # noqa: E402
import servers  # noqa: E402

LUARUN = os.path.join(harness.BUILD, "luarun")
PREFIX = "some/pre fix/"
MIB = 1 << 20
NAMES = ["plain", "with space/and more .txt", "a+b+c", "100%/50%25.txt", "neo4j-2020-06-16-12:32:57.tar.gz",
         "grün/日本語/ñ.txt", "a!$&'()*,;=@[]~_-.^`{}|\"<>", "what?/x#y&z=1", "dot.", "e\u0301.txt", "\U0001F4BE",
         "n" * (1024 - len(PREFIX))]
# gcp-storage-emulator keeps keys as paths, so nothing in it ends in `/` or has `//`, and it sends Google's client to
# addresses that are not escaped.
NAMES_OF = {"fakegcs": NAMES + ["a//b", "//", "slash/"], "gcsemulator": [n for n in NAMES if not set(n) & set("?#%;")]}
SIZES = {"empty": 0, "a byte": 1, "a part": MIB, "a part and a byte": MIB + 1, "parts": 3 * MIB + 12345}

WRITE = """
for one in json.load(open(sys.argv[1])):
    blob = bucket.blob(sys.argv[2] + one["key"], chunk_size=1 << 18 if one["size"] >= 1 << 20 else None)
    blob.metadata = one["meta"]
    block = hashlib.sha256(one["key"].encode()).digest()
    body = (block * (one["size"] // 32 + 1))[:one["size"]]
    blob.upload_from_string(body, "application/octet-stream")
"""
READ = """
found = []
for blob in client.list_blobs("lunark-test", prefix=sys.argv[2]):
    body = blob.download_as_bytes(checksum="crc32c")
    found.append({"key": blob.name[len(sys.argv[2]):], "size": blob.size, "sha256": hashlib.sha256(body).hexdigest(),
                  "meta": blob.metadata or {}})
print(json.dumps(found))
"""
UPLOAD = 'bucket.blob(sys.argv[1]).upload_from_filename(sys.argv[2])'
DOWNLOAD = 'sys.stdout.buffer.write(bucket.blob(sys.argv[1]).download_as_bytes())'


class Case(harness.Case):
    def serve(self, emulator, *options):
        self.servers = servers.Servers(self.dir)
        self.addCleanup(self.servers.stop)
        try:
            getattr(self.servers, emulator)(["lunark-test"], *options)
            self.servers.google_client("")
        except servers.Unavailable as reason:
            raise unittest.SkipTest(str(reason)) from reason

    def lua(self, *words):
        child = subprocess.run([LUARUN, "tests/provider/gcs_client.lua", *words], cwd=ROOT, env=self.servers.env,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120,
                               check=False)
        self.assertEqual(0, child.returncode, child.stderr.decode())
        return json.loads(child.stdout)


class Objects(Case):
    def described(self, emulator):
        """The objects to be, in a file, and as both sides must report them."""
        objects = [{"key": key, "size": 20 + number, "meta": {}} for number, key in enumerate(NAMES_OF[emulator])]
        objects += [{"key": "size/" + key, "size": size, "meta": {"lunark-version": "0.1", "of": key}}
                    for key, size in SIZES.items()]
        expected = []
        for one in sorted(objects, key=lambda one: one["key"].encode()):
            block = hashlib.sha256(one["key"].encode()).digest()
            body = (block * (one["size"] // 32 + 1))[:one["size"]]
            expected.append({**one, "sha256": hashlib.sha256(body).hexdigest()})
        return self.write("objects.json", json.dumps(objects)), expected

    def test_each_reads_what_the_other_one_wrote(self):
        for emulator in NAMES_OF:
            with self.subTest(emulator):
                self.serve(emulator)
                file, expected = self.described(emulator)
                self.maxDiff = None
                self.assertEqual(expected, [dict(one, meta=one["meta"] or {}) for one in self.lua("write", file)])
                self.assertEqual(expected, json.loads(self.servers.google_client(READ, file, PREFIX)))
                self.servers.stop()
                self.serve(emulator)
                self.servers.google_client(WRITE, file, PREFIX)
                self.assertEqual(expected, [dict(one, meta=one["meta"] or {}) for one in self.lua("read", file)])


class Backups(Case):
    def both_ways(self, emulator):
        self.serve(emulator)
        harness.make_tree(self.path("tree"), files=20, big=1 << 19)
        url, env = "gs://lunark-test/nightly", {"STORAGE_EMULATOR_HOST": self.servers.env["STORAGE_EMULATOR_HOST"]}
        self.lunark("backup", "files", self.path("tree"), "--name", "tree", "--to", url, env=env)
        key = next(one["key"] for one in json.loads(self.servers.google_client(READ, "", "nightly/"))
                   if one["key"].endswith("latest.tar.gz"))
        os.mkdir(self.path("theirs"))
        subprocess.run(["tar", "xzf", "-", "-C", self.path("theirs")], check=True, stderr=subprocess.DEVNULL,
                       input=self.servers.google_client(DOWNLOAD, "nightly/" + key))
        expected = harness.describe(self.path("tree"))
        self.assertEqual(expected, harness.describe(self.path("theirs") + self.path("tree")))
        subprocess.run(["tar", "czf", self.path("other.tar.gz"), "-C", self.path("tree"), "big.bin"], check=True)
        self.servers.google_client(UPLOAD, "nightly/other/other-2026-03-01T120000Z.tar.gz", self.path("other.tar.gz"))
        listed = self.lunark("list", url, "--all", env=env).stdout
        self.assertIn("tree", listed)
        self.assertIn("other-2026-03-01T120000Z.tar.gz", listed)
        self.lunark("restore", "--from", url, "--item", "tree", "--into", self.path("ours"), env=env)
        self.assertEqual(expected, harness.describe(self.path("ours") + self.path("tree")))
        self.lunark("restore", "--from", url, "--item", "other", "--into", self.path("other"), env=env)
        with open(self.path("other", "big.bin"), "rb") as ours, open(self.path("tree", "big.bin"), "rb") as file:
            self.assertEqual(file.read(), ours.read())

    def test_preconditions_and_pages(self):
        self.both_ways("fakegcs")

    def test_the_other_emulator(self):
        self.both_ways("gcsemulator")


class Pages(http.server.BaseHTTPRequestHandler):
    """Lists of the JSON API: https://cloud.google.com/storage/docs/json_api/v1/objects/list. The emulators take minutes
    for so many objects. Now and then a page has fewer than were asked for, or none, as Google's may."""
    protocol_version = "HTTP/1.1"
    keys = sorted([f"aaa/{n:06}" for n in range(50000)] + [f"some/pre fix/{n:06}" for n in range(10001)] +
                  [f"some/pre fix2/{n:06}" for n in range(50000)])
    asked = []

    def log_message(self, *_):
        pass

    def do_GET(self):
        place, _, query = self.path.partition("?")
        query = dict(urllib.parse.parse_qsl(query))
        self.asked.append(query)
        assert place == "/storage/v1/b/lunark-test/o", place
        keys = [key for key in self.keys if key.startswith(query["prefix"])]
        start = int(query.get("pageToken", "0.").split(".")[0])
        most = (0, 10, 1000)[len(self.asked) % 3 if len(self.asked) < 10 else 2]
        page = keys[start:start + min(most, int(query["maxResults"]))]
        answer = {"items": [{"name": key, "size": "0"} for key in page]} if page else {}
        if start + len(page) < len(keys):
            answer["nextPageToken"] = f"{start + len(page)}.{len(self.asked)}"
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Listing(harness.Case):
    def test_many_objects_beside_far_more(self):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        program = """
local s = assert(require "lunark.store".open(...))
local count, last = 0, ""
for info, err in s:list() do
  assert(assert(info, err).key > last)
  count, last = count + 1, info.key
end
print(count, last)
"""
        url = f"gs://lunark-test/some/pre%20fix?endpoint=http://127.0.0.1:{server.server_port}&anonymous=true"
        child = subprocess.run([LUARUN, self.write("count.lua", program), url], env=harness.environment(), check=True,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=120)
        self.assertEqual(b"10001\t010000\n", child.stdout)
        self.assertEqual({"some/pre fix/"}, {query["prefix"] for query in Pages.asked})
        self.assertLess(len(Pages.asked), 25)


if __name__ == "__main__":
    harness.main()
