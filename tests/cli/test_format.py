# SPDX-License-Identifier: MIT
"""docs/format.md is enough to write a reader: docs/read_archive.py lists archives that lunark wrote and gets one file, and
reads no more than the footer, the list, a block and the members that hold the file."""
import glob
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import future_archive  # noqa: E402
from harness import ROOT, Case, make_tree, main  # noqa: E402

READER = os.path.join(ROOT, "docs", "read_archive.py")
spec = importlib.util.spec_from_file_location("read_archive", READER)
read_archive = importlib.util.module_from_spec(spec)
spec.loader.exec_module(read_archive)
BLOCK_MAX, FOOTER = 8192 + 22, 94


class Counted:
    """A file that counts what is read of it, as a ranged read would."""

    def __init__(self, path):
        self.file, self.bytes = open(path, "rb", buffering=0), 0

    def seek(self, *where):
        return self.file.seek(*where)

    def read(self, size):
        data = self.file.read(size)
        self.bytes += len(data)
        return data


class Format(Case):
    def backup(self, *args, store="store"):
        store = self.path(store)
        self.lunark("backup", *args, "--to", store, "--name", "x", "--no-latest")
        return glob.glob(store + "/x/x-*.gz")[0]

    def open(self, archive):
        file = Counted(archive)
        self.addCleanup(file.file.close)
        return file, read_archive.Archive(file)

    def compare(self, archive):
        """Every record and all content is what Python's tarfile finds; the records."""
        _, reader = self.open(archive)
        records, count = list(reader.files()), 0
        with tarfile.open(archive, errors="surrogateescape") as tar:
            for record, entry in zip(records, tar, strict=True):
                name = entry.name.encode(errors="surrogateescape")
                self.assertEqual(name[:4096], record[0].rstrip(b"/") if entry.isdir() else record[0])
                self.assertEqual((entry.type, entry.size), (record[1], record[2]), name)
                if entry.isreg():
                    self.assertEqual(tar.extractfile(entry).read(), b"".join(reader.content(record)), name)
                    self.assertEqual(entry.size > 0, record[6] is not None)
                    count += 1
        self.assertGreater(count, 0)
        return records

    def frugal(self, archive, path, want, blocks=2):
        """One file, and how much was read for it."""
        file, reader = self.open(archive)
        record = reader.find(path)
        self.assertEqual(want, b"".join(reader.content(record)), path)
        opened = FOOTER + reader.end - reader.list_at
        self.assertLessEqual(file.bytes - opened, blocks * BLOCK_MAX + self.members(archive, record), path)
        return record

    def members(self, archive, record):
        """Bytes of the members that hold the file."""
        with open(archive, "rb") as file:
            reader, at, left, total = read_archive.Archive(file), record[3], record[5] + record[2], 0
            while left > 0:
                kind, size, raw, _, _ = reader.member(at)
                at, left, total = at + size, left - (raw if kind == 0 else 0), total + size
        return total

    def test_a_tree(self):
        tree = make_tree(self.path("src"), files=80)
        archive = self.backup("files", tree)
        records = self.compare(archive)
        prefix = os.fsencode(tree.lstrip("/"))
        for record in records:
            _, reader = self.open(archive)
            self.assertEqual(record, reader.find(record[0]))
            name = os.path.join(os.fsencode(tree), os.path.relpath(record[0], prefix))
            if record[1] == b"0":
                with open(name, "rb") as file:
                    self.frugal(archive, record[0], file.read())
        with self.assertRaises(KeyError):
            self.open(archive)[1].find(prefix + b"/nothing")
        done = subprocess.run([sys.executable, READER, archive], capture_output=True, check=True)
        self.assertEqual(len(records), len(done.stdout.splitlines()))

    def test_many_blocks(self):
        for number in range(6000):
            self.write(f"src/d{number % 50}/f {number}", b"%d" % number)
        archive = self.backup("files", self.path("src"))
        _, reader = self.open(archive)
        self.assertGreater(len(reader.blocks), 30)
        self.compare(archive)
        prefix = os.fsencode(self.path("src").lstrip("/"))
        for number in range(0, 6000, 97):
            self.frugal(archive, prefix + b"/d%d/f %d" % (number % 50, number), b"%d" % number)

    def test_large_files_and_holes(self):
        big = os.urandom(1 << 20) * 3 + b"x" * (3 << 20) + b"end"
        self.write("src/big", big)
        for number in range(300):
            self.write(f"src/c{number}", b"%d" % number)
        with open(self.path("src", "holes"), "wb") as file:
            file.seek(20 << 20)
            file.write(b"end")
        self.write("src/zero")
        archive = self.backup("files", self.path("src"))
        self.compare(archive)
        prefix = os.fsencode(self.path("src").lstrip("/"))
        self.frugal(archive, prefix + b"/big", big)
        self.frugal(archive, prefix + b"/holes", b"\0" * (20 << 20) + b"end")
        self.frugal(archive, prefix + b"/zero", b"")

    def test_paths_that_are_cut(self):
        os.mkdir(self.path("src"))
        at = os.open(self.path("src"), os.O_RDONLY)
        for _ in range(19):
            os.mkdir("n" * 250, dir_fd=at)
            below = os.open("n" * 250, os.O_RDONLY, dir_fd=at)
            os.close(at)
            at = below
        for name in ("a", "b"):
            file = os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=at)
            os.write(file, name.encode() * 9)
            os.close(file)
        os.close(at)
        archive = self.backup("files", self.path("src"))
        records = self.compare(archive)
        self.assertEqual([4096] * 2, [len(record[0]) for record in records if record[1] == b"0"])
        folder = os.fsencode(self.path("src").lstrip("/")) + (b"/" + b"n" * 250) * 19
        self.frugal(archive, folder + b"/b", b"b" * 9, blocks=3)
        self.frugal(archive, folder + b"/a", b"a" * 9, blocks=3)

    def test_roots_in_any_order(self):
        for number in range(1000):
            self.write(f"b/{number}", b"b%d" % number)
            self.write(f"a/{number}", b"a%d" % number)
        archive = self.backup("files", self.path("b"), self.path("a"))
        self.compare(archive)
        _, reader = self.open(archive)
        for name in ("a", "b"):
            path = os.fsencode(self.path(name, "777").lstrip("/"))
            self.assertEqual(name.encode() + b"777", b"".join(reader.content(reader.find(path))))

    def test_output_of_a_program(self):
        for size, script in ((1, "print(end='x')"), (3 << 20, "import sys; sys.stdout.write('0123456789abcdef' * (3 << 16))")):
            run = self.write("dump.lua", f"""
                local exec, store, transfer = require "lunark.exec", require "lunark.store", require "lunark.transfer"
                local to = assert(store.open(arg[1]))
                local dump = exec.stream {{ "{sys.executable}", "-c", "{script}" }}
                assert(transfer.upload(dump:gzip {{}}, {{ {{ store = to, key = "dump.gz" }} }}))""")
            os.makedirs(self.path("out"), exist_ok=True)
            self.lunark("run", "--allow", "exec=*", "--allow", f"read={self.path()}", "--allow", f"write={self.path()}", run,
                        self.path("out"))
            archive = self.path("out", "dump.gz")
            _, reader = self.open(archive)
            self.assertEqual([], list(reader.files()))
            self.assertEqual(size, sum(map(len, reader.data(0, 0, size))))
            self.assertEqual(0, subprocess.run(["gzip", "-t", archive], check=False).returncode)

    def test_what_a_later_version_may_add(self):
        archive = self.path("f-2030-01-01T000000Z.tar.gz")
        with open(archive, "wb") as file:
            file.write(future_archive.archive())
        self.assertEqual(30, len(self.compare(archive)))
        for number in range(30):
            self.frugal(archive, b"future/file-%d" % number, bytes((number,)) * (number * 1000))
        self.lunark("restore", "--from", archive, "--into", self.path("out"))
        self.lunark("restore", "--from", archive, "--into", self.path("one"), "--path", "future/file-17")
        self.assertEqual(17000, os.path.getsize(self.path("one", "future", "file-17")))
        os.mkdir(self.path("f"))
        shutil.copy(archive, self.path("f"))
        for more in ([], ["--data", "all"], ["--data", "50%"]):
            said = self.lunark("verify", self.path(), "--item", "f", *more)
            self.assertIn("unverified", said.stdout)
            self.assertNotIn("error", said.stderr)
        for number in range(30):
            with open(self.path("out", "future", f"file-{number}"), "rb") as file:
                self.assertEqual(bytes((number,)) * (number * 1000), file.read())

    def test_what_other_readers_make_of_the_index_is_verified(self):
        """The trailer of a member without data is nothing to lunark, and an error to gzip."""
        for number in range(300):
            self.write(f"src/{number}", b"%d" % number)
        archive = self.backup("files", self.path("src"))
        os.unlink(archive.replace(".tar.gz", ".manifest.json"))
        with open(archive, "rb") as file:
            reader, data = read_archive.Archive(file), bytearray(file.seek(0) or file.read())
            end = reader.blocks[0][0] + reader.member(reader.blocks[0][0])[1]
        data[end - 8] ^= 1
        with open(archive, "wb") as file:
            file.write(data)
        self.assertEqual(1, subprocess.run(["gzip", "-t", archive], capture_output=True, check=False).returncode)
        said = self.lunark("verify", self.path("store"), "--data", "all", status=4)
        self.assertIn("it should be empty to other readers", said.stderr)


if __name__ == "__main__":
    main()
