#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Microsoft's own client and lunark on one container: each lists and reads what the other one wrote, and `lunark`
restores it; signatures that the client makes; a backup that is stopped; and far more objects than are ours."""
import json
import os
import signal
import sys
import time
from xml.sax.saxutils import escape

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "support"))

import harness  # noqa: E402
import servers  # noqa: E402
from client_case import NAMES, PREFIX, ClientCase, ListingCase, Pages  # noqa: E402

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


class Case(ClientCase):
    scheme, READ, UPLOAD, DOWNLOAD = "azure", READ, UPLOAD, DOWNLOAD

    def setUp(self):
        super().setUp()
        self.servers = servers.Servers(self.dir)
        self.addCleanup(self.servers.stop)
        self.servers.azurite(["lunark-test"])
        self.env = {name: self.servers.env[name]
                    for name in ("AZURE_STORAGE_BLOB_ENDPOINT", "AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_KEY")}

    def theirs(self, program, *arguments):
        return self.servers.azure_client(program, *arguments)


class Objects(Case):
    def test_each_reads_what_the_other_one_wrote(self):
        self.maxDiff = None
        file, expected = self.described(NAMES)
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
        self.both_ways(self.env)

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
        self.assertEqual(2, self.lunark("verify", self.URL, env=may("rl")).stdout.count("ok "))
        self.lunark("verify", archive, env=may("r"))
        failed = self.backup("tree", env=may("rl"), status=3)
        self.assertIn("a permission is missing", failed.stderr)
        prune = ("prune", self.URL, "--keep-last", "1", "--yes")
        failed = self.lunark(*prune, env=may("rl"), status=3)
        self.assertIn("a permission is missing", failed.stderr)
        self.assertIn("1 backups deleted", self.lunark(*prune, env=may("rld")).stderr)
        self.lunark("prune", self.URL, "--orphans", "--yes", env=may("rld"))
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
            self.assertEqual([], json.loads(self.theirs(EVERYTHING)), "blocks are left")


class AzurePages(Pages):
    """Lists of blobs: https://learn.microsoft.com/rest/api/storageservices/list-blobs."""
    asked = []

    def do_GET(self):
        place, query = self.request_of()
        assert place == "/a/lunark-test" and query["restype"] == "container" and query["comp"] == "list", self.path
        start = int(query.get("marker", "0/+").split("/")[0])
        page, following = self.page(query["prefix"], start, int(query["maxresults"]), 5000)
        more = f"{following}/+{len(self.asked)}=" if following is not None else ""
        blobs = "".join(f"<Blob><Name>{escape(key)}</Name><Properties><Last-Modified>Tue, 24 Nov 2026 12:00:00 GMT"
                        "</Last-Modified><Etag>0x1</Etag><Content-Length>0</Content-Length></Properties></Blob>"
                        for key in page)
        self.reply((f'\ufeff<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs>{blobs}</Blobs>'
                    f"<NextMarker>{more}</NextMarker></EnumerationResults>").encode())


class Listing(ListingCase):
    def test_many_objects_beside_far_more(self):
        self.count(AzurePages, "azure://lunark-test/some/pre%20fix?endpoint=http://127.0.0.1:PORT/a",
                   '{ account_key = "d3Jvbmcga2V5" }')


if __name__ == "__main__":
    harness.main()
