#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Archives that want to harm: each is restored or refused as the table says, nothing appears outside of the target, and
memory stays within bounds. The archives are made here, header by header where tarfile would not."""
import gzip
import io
import os
import random
import resource
import stat
import subprocess
import sys
import unittest
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import Case, main  # noqa: E402

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
END = bytes(1024)
ENTRIES = int(os.environ.get("LUNARK_TEST_ENTRIES", "50000"))


def header(name, kind=b"0", size=0, link=b"", mode=0o644, raw_size=None):
    """A ustar header; raw_size are the 12 bytes of the size field."""
    field = raw_size or b"%011o\0" % size
    block = bytearray(name.ljust(100, b"\0")[:100] + b"%07o\0" % mode + b"0000000\0" * 2 + field + b"14000000000\0"
                      + b" " * 8 + kind + link.ljust(100, b"\0")[:100] + b"ustar\00000" + bytes(247))
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def file(name, data=b"data", **more):
    return header(name, size=len(data), **more) + data + bytes(-len(data) % 512)


def link(name, target):
    return header(name, b"2", link=target)


def hard(name, target):
    return header(name, b"1", link=target)


def folder(name, mode=0o755):
    return header(name, b"5", mode=mode)


def record(key, value):
    body = b" " + key + b"=" + value + b"\n"
    size = len(body) + 1
    while len(b"%d" % size) + len(body) != size:
        size = len(b"%d" % size) + len(body)
    return b"%d" % size + body


def pax(kind=b"x", **records):
    data = b"".join(record(k.replace("__", ".").encode(), v) for k, v in records.items())
    return file(b"pax", data, kind=kind)


def long_name(name):
    return file(b"././@LongLink", name + b"\0", kind=b"L")


def base256(number):
    return b"\x80" + number.to_bytes(11, "big")


def packed(*pieces):
    return gzip.compress(b"".join(pieces) + END, 1)


def repeated(head, piece, count, tail=b"", level=1):
    """gzip of head, count times piece, tail; never in memory as a whole."""
    out, packer = [], zlib.compressobj(level, wbits=31)
    out.append(packer.compress(head))
    block, left = piece * max(1, MIB // len(piece)), count
    while left > 0:
        n = min(left, len(block) // len(piece))
        out.append(packer.compress(block[:n * len(piece)]))
        left -= n
    return b"".join(out) + packer.compress(tail) + packer.flush()


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1:]


GOOD = packed(folder(b"d"), file(b"d/f", random.Random(3).randbytes(100000)), file(b"d/g", b"x" * 5000))
REFUSED_PATH = "a path beneath the target was expected|one beneath the target was expected"
THROUGH = "(is a link|is not a directory).* was expected"

# name: (archive, status, what standard error says)
TABLE = {
    "absolute name": (packed(file(b"/tmp/lunark-evil")), 4, "absolute path, " + REFUSED_PATH),
    "absolute name of pax": (packed(pax(path=b"/tmp/lunark-evil"), file(b"x")), 4, REFUSED_PATH),
    "dotdot": (packed(file(b"../evil")), 4, REFUSED_PATH),
    "dotdot inside": (packed(folder(b"a"), file(b"a/../../evil")), 4, REFUSED_PATH),
    "dotdot at the end": (packed(folder(b"a/..")), 4, REFUSED_PATH),
    "dotdot as a link": (packed(link(b"..", b"/tmp")), 4, REFUSED_PATH),
    "file through a link": (packed(link(b"way", b".."), file(b"way/evil")), 4, THROUGH),
    "file through an absolute link": (packed(link(b"way", b"/tmp"), file(b"way/lunark-evil")), 4, THROUGH),
    "file through a chain": (packed(link(b"a", b"."), link(b"b", b"a/.."), file(b"b/evil")), 4, THROUGH),
    "folder through a link": (packed(link(b"way", b".."), folder(b"way/evil")), 4, THROUGH),
    "link through a link": (packed(link(b"way", b".."), link(b"way/evil", b"x")), 4, THROUGH),
    "links in a circle": (packed(link(b"a", b"b"), link(b"b", b"a"), file(b"a/evil")), 4, THROUGH),
    "file below a file": (packed(file(b"f"), file(b"f/evil")), 4, THROUGH),
    "file over a link": (packed(link(b"way", b"../secret"), file(b"way")), 0, ""),
    "folder over a link": (packed(link(b"way", b".."), folder(b"way", 0o700), file(b"way/evil")), 0, ""),
    "mode of a folder over a link": (packed(folder(b"d", 0o777), link(b"e", b"../kept"), folder(b"e", 0o777)), 0, ""),
    "hard link by dotdot": (packed(hard(b"l", b"../secret"), file(b"l", b"evil")), 4, REFUSED_PATH),
    "absolute hard link": (packed(hard(b"l", b"/etc/passwd")), 4, REFUSED_PATH),
    "hard link through a link": (packed(link(b"way", b".."), hard(b"l", b"way/secret")), 4, THROUGH),
    "hard link to a link": (packed(link(b"s", b"../secret"), hard(b"l", b"s"), file(b"l", b"evil")), 0, ""),
    "hard link to itself": (packed(file(b"f"), hard(b"f", b"f")), 0, ""),
    "hard link to nothing": (packed(hard(b"l", b"nothing")), 4, "which is not in the archive before it"),
    "hard link to a folder": (packed(folder(b"d"), hard(b"l", b"d")), 1, "l can't be linked"),
    "device": (packed(header(b"null", b"3", mode=0o666), file(b"f")), 0, "device is left out"),
    "fifo, then a file of that name": (packed(header(b"p", b"6"), file(b"p")), 0, ""),
    "folder, then a file of that name": (packed(folder(b"d"), file(b"d")), 1, "d is a directory in the target"),
    "no name": (packed(file(b"")), 4, "is damaged|has no name"),
    "the target as a file": (packed(file(b".")), 4, "is the target itself, but no directory"),
    "size of 8 EiB": (packed(header(b"f", raw_size=base256((1 << 63) - 1)), b"data"), 4, "damaged|cut off"),
    "negative size": (packed(header(b"f", raw_size=b"\xff" * 12), b"data" + bytes(508)), 4, "damaged"),
    "size of pax": (packed(pax(size=b"9" * 30), file(b"f")), 4, "damaged|cut off"),
    "sparse file of 4 EiB": (packed(pax(GNU__sparse__major=b"1", GNU__sparse__minor=b"0", GNU__sparse__name=b"s",
                                        GNU__sparse__realsize=b"4611686018427387904"),
                                    file(b"s", b"1\n0\n0\n".ljust(512, b"\0"))), None, "damaged|given its size|too large"),
    "sparse map out of order": (packed(pax(GNU__sparse__major=b"1", GNU__sparse__minor=b"0", GNU__sparse__name=b"s",
                                           GNU__sparse__realsize=b"10"),
                                       file(b"s", b"2\n8\n4\n0\n4\n".ljust(512, b"\0") + b"evil" * 2)), None, ""),
    "mtime out of the world": (packed(pax(mtime=b"9" * 20), file(b"f")), None, ""),
    "no gzip, no tar": (b"nothing of the kind\n" * 1000, 4, "damaged"),
    "empty": (b"", 4, "cut off|empty|damaged"),
    "zeros": (bytes(10240), None, ""),
    "gzip in gzip": (gzip.compress(GOOD), 4, "damaged"),
    "checksum of a header": (gzip.compress(flipped(file(b"f"), 5) + END), 4, "damaged"),
    "no end mark": (gzip.compress(file(b"f")), 4, "cut off"),
    "something behind the end": (GOOD + b"something", 4, "followed by something else|damaged"),
    "pax headers without end": (repeated(b"", pax(comment=b"x"), 100000, END), None, ""),
    "pax header of a GiB": (repeated(header(b"x", b"x", size=GIB), b"1" * 512, 2 * KIB * KIB, END), 4, "damaged"),
    "name of a GiB": (repeated(header(b"x", b"L", size=GIB), b"n" * 512, 2 * KIB * KIB, END), 4, "damaged"),
    "global headers without end": (repeated(b"", pax(kind=b"g", comment=b"x"), 100000, file(b"f") + END), None, ""),
    "a thousand attributes": (packed(pax(**{f"SCHILY__xattr__user__a{n}": b"v" for n in range(1000)}), file(b"f")), None, ""),
    "name of 100,000 bytes": (packed(long_name(b"n" * 100000), file(b"x")), 1, "name too long"),
    "path of 1,000 levels": (packed(long_name(b"d/" * 1000 + b"f"), file(b"x")), 0, ""),
    "a path of names and dots": (packed(folder(b"./a//./b/"), file(b"./a//./c")), 0, ""),
    "name with control characters": (packed(header(b"e\x1b[2J\nx", b"3")), 0, "device is left out"),
}


class Hostile(Case):
    def setUp(self):
        super().setUp()
        self.write("secret", "mine")
        os.mkdir(self.path("kept"), 0o700)
        self.store, self.into = self.path("store"), self.path("into")

    def tearDown(self):
        subprocess.run(["rm", "-rf", self.dir], check=False)  # deeper than Python goes
        super().tearDown()

    def restore(self, data, *more, status=0):
        subprocess.run(["rm", "-rf", self.into], check=True)
        self.write("store/a.tar.gz", data)
        done = self.lunark("restore", "--from", self.path("store/a.tar.gz"), "--into", self.into, *more, status=None,
                           timeout=60)
        if status is not None:
            self.assertEqual(status, done.returncode, done.stderr)
        self.assertIn(done.returncode, (0, 1, 4), done.stderr)
        return done

    def check_outside(self):
        self.assertEqual(["into", "kept", "secret", "store"], sorted(os.listdir(self.dir)))
        with open(self.path("secret"), encoding="utf-8") as found:
            self.assertEqual("mine", found.read())
        self.assertEqual(1, os.stat(self.path("secret")).st_nlink)
        self.assertEqual(0o700, stat.S_IMODE(os.stat(self.path("kept")).st_mode))
        self.assertFalse(os.path.lexists("/tmp/lunark-evil"))

    def test_table(self):
        for name, (data, status, words) in TABLE.items():
            with self.subTest(name):
                done = self.restore(data, status=status)
                self.assertRegex(done.stderr, words or ".")
                self.assertNotIn("\x1b", done.stderr)
                if done.returncode:
                    self.assertRegex(done.stderr, "(?m)^lunark: ")
                self.check_outside()

    def test_through_links_that_were_there(self):
        """What is in the target already is no proof of a hostile archive: status 1. And nothing goes through it."""
        for more in ((), ("--existing", "skip"), ("--overwrite",)):
            subprocess.run(["rm", "-rf", self.into], check=True)
            self.write("store/a.tar.gz", packed(file(b"way/evil")))
            os.mkdir(self.into)
            os.symlink("../kept", self.path("into/way"))
            done = self.lunark("restore", "--from", self.path("store/a.tar.gz"), "--into", self.into, *more,
                               status=1 if more else 2)
            self.assertRegex(done.stderr, "is a link|is not empty")
            self.check_outside()
            self.assertEqual([], os.listdir(self.path("kept")))

    def test_cut_anywhere(self):
        for at in range(1, len(GOOD), len(GOOD) // 25):
            done = self.restore(GOOD[:-at], status=4)
            self.assertRegex(done.stderr, "a.tar.gz is damaged")

    def test_a_bit_anywhere(self):
        refused = 0
        for at in range(2, len(GOOD), len(GOOD) // 40):
            done = self.restore(flipped(GOOD, at), status=None)
            refused += done.returncode == 4
            self.check_outside()
        self.assertGreater(refused, 38)  # a bit of gzip's header may say nothing

    def test_bombs(self):
        bomb = repeated(header(b"f", raw_size=base256(GIB // 2)), b"a" * 4096, GIB // 8192, END, 9)
        done = self.restore(bomb, status=4)
        self.assertIn("grows to more than 250 times its size", done.stderr)
        self.assertIn("--max-ratio", done.stderr)
        self.assertEqual([], os.listdir(self.into))
        for more in (("--max-size", "200M"), ("--max-ratio", "0", "--max-size", "100M")):
            self.assertIn("more than the", self.restore(bomb, *more, status=4).stderr)
        # Zeros are holes, and take no room: a real backup may have any number of them.
        self.restore(repeated(header(b"f", raw_size=base256(2 * GIB)), bytes(MIB), 2 * KIB, END))
        self.assertEqual(2 * GIB, os.stat(self.path("into/f")).st_size)
        self.assertLess(os.stat(self.path("into/f")).st_blocks, 1000)

    @unittest.skipUnless(os.geteuid() == 0, "needs root: devices, capabilities")
    def test_rights_come_only_when_asked_for(self):
        caps = bytes.fromhex("0100000200200000000000000000000000000000")
        data = packed(header(b"null", b"3", mode=0o666), pax(SCHILY__xattr__security__capability=caps),
                      file(b"tool", mode=0o6755))
        self.restore(data, "--owner", "none")
        self.assertEqual(0o755, stat.S_IMODE(os.stat(self.path("into/tool")).st_mode))
        self.assertNotIn("security.capability", os.listxattr(self.path("into/tool")))
        self.assertFalse(os.path.lexists(self.path("into/null")))
        self.restore(data, "--mode", "umask")
        self.assertNotIn("security.capability", os.listxattr(self.path("into/tool")))
        self.restore(data, "--devices")
        self.assertEqual(0o6755, stat.S_IMODE(os.stat(self.path("into/tool")).st_mode))
        self.assertEqual(caps, os.getxattr(self.path("into/tool"), "security.capability"))
        self.assertTrue(stat.S_ISCHR(os.stat(self.path("into/null")).st_mode))

    def test_many_entries_in_one_folder(self):
        out = io.BytesIO()
        with gzip.open(out, "wb", compresslevel=1) as target:
            for number in range(ENTRIES):
                target.write(header(b"folder/%d" % number))
            target.write(END)
        self.restore(out.getvalue())
        self.assertEqual(ENTRIES, len(os.listdir(self.path("into/folder"))))

    @classmethod
    def tearDownClass(cls):
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        assert peak < 96 * KIB, f"{peak} KiB at most"


if __name__ == "__main__":
    main()
