#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Microsoft's own client and lunark on one container: each lists and reads what the other one wrote, and `lunark`
restores it; signatures that the client makes; a backup that is stopped; and far more objects than are ours."""
import hashlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
import unittest
import urllib.parse
from xml.sax.saxutils import escape

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "support"))

import harness  # noqa: E402
import servers  # noqa: E402

LUARUN = os.path.join(harness.BUILD, "luarun")
PREFIX = "some/pre fix/"
MIB = 1 << 20
NAMES = ["plain", "with space/and more .txt", "a+b+c", "100%/50%25.txt", "neo4j-2020-06-16-12:32:57.tar.gz",
         "grün/日本語/ñ.txt", "a!$&'()*,;=@[]~_-.^`{}|\"<>", "what?/x#y&z=1", "dot.", "e\u0301.txt", "\U0001F4BE",
         "a//b", "//", "slash/", "n" * (1024 - len(PREFIX))]
SIZES = {"empty": 0, "a byte": 1, "a part": MIB, "a part and a byte": MIB + 1, "parts": 3 * MIB + 12345}

WRITE = """
for one in json.load(open(sys.argv[1])):
    block = hashlib.sha256(one["key"].encode()).digest()
    body = (block * (one["size"] // 32 + 1))[:one["size"]]
    meta = {name.replace("-", "_"): value for name, value in one["meta"].items()}
    container.upload_blob(sys.argv[2] + one["key"], body, metadata=meta)
"""
READ = """
found = []
for one in container.list_blobs(name_starts_with=sys.argv[1], include=["metadata"]):
    body = container.download_blob(one.name, validate_content=True).readall()
    found.append({"key": one.name[len(sys.argv[1]):], "size": one.size, "sha256": hashlib.sha256(body).hexdigest(),
                  "meta": {name.replace("_", "-"): value for name, value in (one.metadata or {}).items()}})
print(json.dumps(sorted(found, key=lambda one: one["key"].encode())))
"""
UPLOAD = "container.upload_blob(sys.argv[1], open(sys.argv[2], 'rb'))"
DOWNLOAD = "sys.stdout.buffer.write(container.download_blob(sys.argv[1]).readall())"
EVERYTHING = """
print(json.dumps([one.name for one in container.list_blobs(include=["uncommittedblobs"])]))
"""
SIGN = """
ends = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
print(blob.generate_container_sas(service.account_name, "lunark-test", account_key=os.environ["AZURE_STORAGE_KEY"],
                                  permission=sys.argv[1], expiry=ends))
"""


class Case(harness.Case):
    def setUp(self):
        super().setUp()
        self.servers = servers.Servers(self.dir)
        self.addCleanup(self.servers.stop)
        try:
            self.servers.azurite(["lunark-test"])
            self.servers.azure_client("")
        except servers.Unavailable as reason:
            raise unittest.SkipTest(str(reason)) from reason
        self.env = {name: self.servers.env[name]
                    for name in ("AZURE_STORAGE_BLOB_ENDPOINT", "AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_KEY")}

    def theirs(self, program, *arguments):
        return self.servers.azure_client(program, *arguments)


class Objects(Case):
    def described(self):
        """The objects to be, in a file, and as both sides must report them."""
        objects = [{"key": key, "size": 20 + number, "meta": {}} for number, key in enumerate(NAMES)]
        objects += [{"key": "size/" + key, "size": size, "meta": {"lunark-version": "0.1", "of": key}}
                    for key, size in SIZES.items()]
        expected = []
        for one in sorted(objects, key=lambda one: one["key"].encode()):
            block = hashlib.sha256(one["key"].encode()).digest()
            body = (block * (one["size"] // 32 + 1))[:one["size"]]
            expected.append({**one, "sha256": hashlib.sha256(body).hexdigest()})
        return self.write("objects.json", json.dumps(objects)), expected

    def ours(self, what, file):
        child = subprocess.run([LUARUN, "tests/provider/azure_client.lua", what, file], cwd=ROOT, env=self.servers.env,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120,
                               check=False)
        self.assertEqual(0, child.returncode, child.stderr.decode())
        return [dict(one, meta=one["meta"] or {}) for one in json.loads(child.stdout)]

    def test_each_reads_what_the_other_one_wrote(self):
        self.maxDiff = None
        file, expected = self.described()
        self.assertEqual(expected, self.ours("write", file))
        self.assertEqual(expected, json.loads(self.theirs(READ, PREFIX)))
        self.theirs("for one in container.list_blobs(): container.delete_blob(one.name)")
        self.assertEqual([], self.ours("read", file))
        self.theirs(WRITE, file, PREFIX)
        self.assertEqual(expected, self.ours("read", file))


class Backups(Case):
    URL = "azure://lunark-test/nightly"

    def backup(self, tree, **more):
        return self.lunark("backup", "files", self.path(tree), "--name", "tree", "--to", self.URL, **more)

    def test_both_ways(self):
        harness.make_tree(self.path("tree"), files=20, big=1 << 19)
        self.backup("tree", env=self.env)
        key = next(name for name in json.loads(self.theirs(EVERYTHING)) if name.endswith("latest.tar.gz"))
        os.mkdir(self.path("theirs"))
        subprocess.run(["tar", "xzf", "-", "-C", self.path("theirs")], check=True, stderr=subprocess.DEVNULL,
                       input=self.theirs(DOWNLOAD, key))
        expected = harness.describe(self.path("tree"))
        self.assertEqual(expected, harness.describe(self.path("theirs") + self.path("tree")))
        subprocess.run(["tar", "czf", self.path("other.tar.gz"), "-C", self.path("tree"), "big.bin"], check=True)
        self.theirs(UPLOAD, "nightly/other/other-2026-03-01T120000Z.tar.gz", self.path("other.tar.gz"))
        listed = self.lunark("list", self.URL, "--all", env=self.env).stdout
        self.assertIn("tree", listed)
        self.assertIn("other-2026-03-01T120000Z.tar.gz", listed)
        self.lunark("restore", "--from", self.URL, "--item", "tree", "--into", self.path("ours"), env=self.env)
        self.assertEqual(expected, harness.describe(self.path("ours") + self.path("tree")))
        self.lunark("restore", "--from", self.URL, "--item", "other", "--into", self.path("other"), env=self.env)
        with open(self.path("other", "big.bin"), "rb") as ours, open(self.path("tree", "big.bin"), "rb") as file:
            self.assertEqual(file.read(), ours.read())

    def test_least_permissions(self):
        """Those of docs/stores-azure.md, by signatures of the container."""
        self.write("tree/noise", os.urandom(9 << 20))

        def may(permissions):
            sas = self.theirs(SIGN, permissions).decode().strip()
            return dict(self.env, AZURE_STORAGE_KEY=None, AZURE_STORAGE_SAS_TOKEN=sas)
        self.backup("tree", env=may("rcw"))
        self.backup("tree", env=may("rcw"))
        self.assertEqual(5, len(json.loads(self.theirs(EVERYTHING))))
        self.lunark("list", self.URL, env=may("rl"))
        self.lunark("restore", "--from", self.URL, "--item", "tree", "--into", self.path("ours"), env=may("rl"))
        archive = f"{self.URL}/tree/tree-latest.tar.gz"
        self.lunark("restore", "--from", archive, "--into", self.path("one"), env=may("r"))
        failed = self.backup("tree", env=may("rl"), status=3)
        self.assertIn("a permission is missing", failed.stderr)
        failed = self.backup("tree", env=may("cw"), status=1)
        self.assertIn("latest not moved", failed.stderr)
        self.lunark("backup", "files", self.path("tree"), "--name", "tree", "--no-latest", "--to", self.URL,
                    env=may("cw"))

    def test_container_that_is_not_there(self):
        self.write("tree/file", b"x")
        for url, words in (("azure://nowhere/x", "there is no such container\nhint: make the container"),
                           ("azure://lunark-test/x?account=nobody&endpoint=http://127.0.0.1:1", "connect")):
            failed = self.lunark("backup", "files", self.path("tree"), "--name", "n", "--to", url, status=3, env=self.env)
            self.assertIn(words, failed.stderr)
        self.lunark("list", "azure://nowhere/x", status=3, env=self.env)

    def test_stopped(self):
        self.write("tree/noise", os.urandom(24 << 20))
        for number in (signal.SIGTERM, signal.SIGINT):
            child = self.start("backup", "files", self.path("tree"), "--name", "tree", "--to", self.URL,
                               "--limit-rate", "6M", env=self.env)
            deadline = time.monotonic() + 30
            while not json.loads(self.theirs(EVERYTHING)):
                self.assertLess(time.monotonic(), deadline, "no block is there")
            child.send_signal(number)
            _, err = child.communicate(timeout=30)
            self.assertEqual(128 + number, child.returncode, err.decode())
            self.assertEqual([], json.loads(self.theirs("print([one.name for one in container.list_blobs()])")))
            # Blocks that no list names are never a backup.
            self.assertNotIn("tree", self.lunark("list", self.URL, "--all", env=self.env).stdout)
            self.theirs("for one in container.list_blobs(include=['uncommittedblobs']):\n"
                        "    container.upload_blob(one.name, b'', overwrite=True)\n    container.delete_blob(one.name)")


class Pages(http.server.BaseHTTPRequestHandler):
    """Lists of blobs: https://learn.microsoft.com/rest/api/storageservices/list-blobs. Now and then a page has fewer
    than were asked for, or none, as Azure's may."""
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
        assert place == "/a/lunark-test" and query["restype"] == "container" and query["comp"] == "list", self.path
        keys = [key for key in self.keys if key.startswith(query["prefix"])]
        start = int(query.get("marker", "0/+").split("/")[0])
        most = (0, 10, 5000)[len(self.asked) % 3 if len(self.asked) < 10 else 2]
        page = keys[start:start + min(most, int(query["maxresults"]))]
        more = f"{start + len(page)}/+{len(self.asked)}=" if start + len(page) < len(keys) else ""
        blobs = "".join(f"<Blob><Name>{escape(key)}</Name><Properties><Last-Modified>Tue, 24 Nov 2026 12:00:00 GMT"
                        "</Last-Modified><Etag>0x1</Etag><Content-Length>0</Content-Length></Properties></Blob>"
                        for key in page)
        body = (f'\ufeff<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs>{blobs}</Blobs>'
                f"<NextMarker>{more}</NextMarker></EnumerationResults>").encode()
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
local s = assert(require "lunark.store".open(..., { account_key = "d3Jvbmcga2V5" }))
local count, last = 0, ""
for info, err in s:list() do
  assert(assert(info, err).key > last)
  count, last = count + 1, info.key
end
print(count, last)
"""
        url = f"azure://lunark-test/some/pre%20fix?endpoint=http://127.0.0.1:{server.server_port}/a"
        child = subprocess.run([LUARUN, self.write("count.lua", program), url], env=harness.environment(), check=True,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=120)
        self.assertEqual(b"10001\t010000\n", child.stdout)
        self.assertEqual({"some/pre fix/"}, {query["prefix"] for query in Pages.asked})
        self.assertLess(len(Pages.asked), 25)


if __name__ == "__main__":
    harness.main()
