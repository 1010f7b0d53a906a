#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Google's own client and lunark on one bucket: each lists and reads what the other one wrote, and `lunark` restores
it. On both emulators. And a bucket with far more objects than are ours."""
import json
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "support"))

import harness  # noqa: E402
import servers  # noqa: E402
from client_case import NAMES, PREFIX, ClientCase, ListingCase, Pages  # noqa: E402

# gcp-storage-emulator keeps keys as paths, so nothing in it ends in `/` or has `//`, and it sends Google's client to
# addresses that are not escaped.
NAMES_OF = {"fakegcs": NAMES, "gcsemulator": [n for n in NAMES if not set(n) & set("?#%;") and "//" not in n and n[-1] != "/"]}
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
for blob in client.list_blobs("lunark-test", prefix=sys.argv[1]):
    body = blob.download_as_bytes(checksum="crc32c")
    found.append({"key": blob.name[len(sys.argv[1]):], "size": blob.size, "sha256": hashlib.sha256(body).hexdigest(),
                  "meta": blob.metadata or {}})
print(json.dumps(found))
"""
UPLOAD = 'bucket.blob(sys.argv[1]).upload_from_filename(sys.argv[2])'
DOWNLOAD = 'sys.stdout.buffer.write(bucket.blob(sys.argv[1]).download_as_bytes())'


class Case(ClientCase):
    scheme, READ, UPLOAD, DOWNLOAD = "gs", READ, UPLOAD, DOWNLOAD

    def begin(self, emulator):
        self.servers = servers.Servers(self.dir)
        self.addCleanup(self.servers.stop)
        getattr(self.servers, emulator)(["lunark-test"])

    def theirs(self, program, *words):
        return self.servers.google_client(program, *words)


class Objects(Case):
    def test_each_reads_what_the_other_one_wrote(self):
        for emulator, names in NAMES_OF.items():
            with self.subTest(emulator):
                self.begin(emulator)
                file, expected = self.described(names)
                self.maxDiff = None
                self.assertEqual(expected, self.ours("write", file))
                self.assertEqual(expected, json.loads(self.theirs(READ, PREFIX)))
                self.servers.stop()
                self.begin(emulator)
                self.theirs(WRITE, file, PREFIX)
                self.assertEqual(expected, self.ours("read", file))


class Backups(Case):
    def both(self, emulator):
        self.begin(emulator)
        self.both_ways({"STORAGE_EMULATOR_HOST": self.servers.env["STORAGE_EMULATOR_HOST"]})

    def test_preconditions_and_pages(self):
        self.both("fakegcs")

    def test_the_other_emulator(self):
        self.both("gcsemulator")


class GooglePages(Pages):
    """Lists of the JSON API: https://cloud.google.com/storage/docs/json_api/v1/objects/list. The emulators take minutes
    for so many objects."""
    asked = []

    def do_GET(self):
        place, query = self.request_of()
        assert place == "/storage/v1/b/lunark-test/o", place
        start = int(query.get("pageToken", "0.").split(".")[0])
        page, following = self.page(query["prefix"], start, int(query["maxResults"]), 1000)
        answer = {"items": [{"name": key, "size": "0"} for key in page]} if page else {}
        if following is not None:
            answer["nextPageToken"] = f"{following}.{len(self.asked)}"
        self.reply(json.dumps(answer).encode())


class Listing(ListingCase):
    def test_many_objects_beside_far_more(self):
        self.count(GooglePages, "gs://lunark-test/some/pre%20fix?endpoint=http://127.0.0.1:PORT&anonymous=true")


if __name__ == "__main__":
    harness.main()
