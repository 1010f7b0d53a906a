# SPDX-License-Identifier: MIT
"""Indexes that are whole and lie, all checksums right: no hang, little memory, and no such archive is called good."""
import hashlib
import io
import json
import os
import resource
import struct
import sys
import tarfile
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from future_archive import number, path_of, raw_deflate  # noqa: E402
from harness import Case, main  # noqa: E402

FILES = {b"a/x": b"hello\n", b"a/y": b"world\n"}


def difference(value):
    value = (value + 2**63) % 2**64 - 2**63
    return number(2 * value if value >= 0 else -2 * value - 1)


def member(kind, payload=b"", data=b""):
    if kind:
        payload = struct.pack("<I", zlib.crc32(payload)) + payload
    body = raw_deflate(data)
    return (b"\x1f\x8b\x08\x04\0\0\0\0\0\xff" + struct.pack("<H2sHBBHII", 16 + len(payload), b"LK", 12 + len(payload), 1, kind, 0,
            len(data), 36 + len(payload) + len(body)) + payload + body + struct.pack("<II", zlib.crc32(data), len(data)))


def record(path, previous=b"", kind=b"0", at=0, header=0, size=0, mtime=0, nanoseconds=0, sha256=b""):
    """The differences are those of a first record, or one with the same numbers before it."""
    body = (number(bool(sha256)) + kind + number(0o100644) + difference(at) + number(header) + number(512) + number(size)
            + difference(mtime) + number(nanoseconds) + number(len(path)) + path_of(path, previous))
    return number(len(body)) + body


def block(base, table, records, digests=()):
    body = b"".join(number(size) + number(raw) for size, raw in table) + b"".join(records)
    return member(1, struct.pack("<QQIIII", base, 0, len(table), len(records), len(digests), len(body)) + b"".join(digests)
                  + raw_deflate(body))


def whole(data, blocks, first):
    """(bytes, members, records) of each block; all of them begin with the same path."""
    parts, listed, at, previous = [data], b"", len(data), (0, b"")
    for part, members, records in blocks:
        entry = (number(at - previous[0]) + number(len(part)) + number(members) + number(records) + number(0)
                 + path_of(first[:128], previous[1]))
        listed += number(len(entry)) + entry
        parts.append(part)
        previous, at = (at, first[:128]), at + len(part)
    listing = member(2, struct.pack("<II", len(blocks), len(listed)) + raw_deflate(listed))
    footer = struct.pack("<I6Q", 2, at, len(listing), len(blocks), sum(b[1] for b in blocks), sum(b[2] for b in blocks), 10240)
    return b"".join(parts) + listing + member(3, footer)


class Lies(Case):
    def setUp(self):
        super().setUp()
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w", format=tarfile.GNU_FORMAT) as file:
            for path, data in FILES.items():
                info = tarfile.TarInfo(path.decode())
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
        self.data = member(0, b"", tar.getvalue())
        self.assertEqual(10240, len(tar.getvalue()))

    def store(self, archive):
        name = f"store-{len(os.listdir(self.dir))}"
        self.write(f"{name}/t/t-2026-01-01T000000Z.tar.gz", archive)
        return self.path(name)

    def one(self, table=None, **lie):
        """Both files in one block; what is said of the first one."""
        table = table or [(len(self.data), 10240)]
        digests = [hashlib.sha256(data).digest() for data in FILES.values()]
        first = record(b"a/x", **{"size": 6, "sha256": digests[0], **lie})
        second = record(b"a/y", b"a/x", at=-lie.get("at", 0), header=1024, size=6, mtime=-lie.get("mtime", 0), sha256=digests[1])
        return self.store(whole(self.data, [(block(0, table, [first, second], digests), len(table), 2)], b"a/x"))

    def restored(self, store):
        into = f"{store}-into"
        done = self.lunark("restore", "--from", store, "--path", "a", "--into", into)
        for path, data in FILES.items():
            with open(os.path.join(os.fsencode(into), path), "rb") as file:
                self.assertEqual(data, file.read())
        return done.stderr

    def times(self, store):
        lines = self.lunark("list", "--files", "--json", store).stdout.splitlines()
        text = self.lunark("list", "--files", store).stdout.splitlines()
        self.assertEqual([2, 2], [len(lines), len(text)])
        return [json.loads(line)["mtime"] for line in lines], [line.split()[2] for line in text]

    def test_what_is_right(self):
        store = self.one()
        self.assertNotIn("reading the archive whole", self.restored(store))
        self.lunark("verify", store, "--data", "all")

    def test_numbers_that_can_not_be(self):
        size = len(self.data)
        for lie in ({"table": [(2**63, 10240), (2**63 + size, 0)]}, {"table": [(size, 2**63 + 7)]}, {"size": 2**64 - 5},
                    {"nanoseconds": 2**32 - 1}, {"nanoseconds": 2**32 + 1}):
            with self.subTest(lie):
                store = self.one(**lie)
                self.assertRegex(self.restored(store), "index of the archive is damaged: .*; reading the archive whole")
                self.assertEqual(["1970-01-01T00:00:00Z"] * 2, self.times(store)[0])
                self.lunark("verify", store, status=4)

    def test_times_that_no_calendar_has(self):
        for seconds in (2**62, -2**62):
            both = [f"@{seconds}", "1970-01-01T00:00:00Z"]
            self.assertEqual((both, both), self.times(self.one(mtime=seconds)))

    def test_few_bytes_that_are_many_paths(self):
        path = b"d/" * 400 + b"a"
        first = block(0, [(len(self.data), 10240)], [record(path, kind=b"5")])
        part = block(0, [], [record(path, kind=b"5")] + [record(path, path, kind=b"5")] * 3500)
        archive = whole(self.data, [(first, 1, 1)] + [(part, 0, 3501)] * 200, path)
        self.assertLess(len(archive), 100_000)
        store = self.store(archive)
        self.lunark("list", "--files", store, "--path", "*zzz", status=1)
        self.lunark("restore", "--from", store, "--path", "*zzz", "--into", self.path("into"), status=1)
        self.assertLess(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, 200 << 10)  # 600 MiB are said


if __name__ == "__main__":
    main()
