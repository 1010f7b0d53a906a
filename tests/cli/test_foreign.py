#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Archives of other tools are restored whole: GNU tar in each of its formats and with each form of sparse files, pigz,
bsdtar, busybox, plain tar."""
import os
import random
import shutil
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import Case, describe, main  # noqa: E402

KIB, MIB = 1 << 10, 1 << 20


def needs(program):
    return unittest.skipUnless(shutil.which(program), f"{program} is not here")


class Foreign(Case):
    def setUp(self):
        super().setUp()
        self.tree, self.into = self.path("tree"), self.path("into")
        rng = random.Random(11)
        self.write("tree/random", rng.randbytes(300 * KIB))
        self.write("tree/sub/empty")
        self.write("tree/sub/text", b"line after line\n" * 20000, 0o640)
        self.write("tree/" + "long name " * 20, b"long")
        self.write("tree/" + "/".join(["deep " * 10] * 8) + "/leaf", b"leaf")
        self.write("tree/ünïcode ☃", b"snow")
        os.symlink("sub/text", self.path("tree/link"))
        os.symlink("x" * 300, self.path("tree/long link"))
        os.link(self.path("tree/random"), self.path("tree/hard"))
        os.mkfifo(self.path("tree/fifo"))
        os.chmod(self.path("tree/sub"), 0o2750)
        with open(self.path("tree/sparse"), "wb") as file:
            for at in (0, 3 * MIB, 7 * MIB + 5):
                file.seek(at)
                file.write(b"data at %d" % at)
            file.truncate(16 * MIB)
        with open(self.path("tree/hole"), "wb") as file:
            file.truncate(5 * MIB)
        for folder, folders, files in os.walk(self.tree, topdown=False):
            for name in files + folders:
                os.utime(os.path.join(folder, name), (1400000000, 1400000000), follow_symlinks=False)
        os.utime(self.tree, (1400000000, 1400000000))

    def archive(self, command, name="a.tar.gz"):
        os.makedirs(self.path("store"), exist_ok=True)
        target = self.path("store", name)
        with open(target, "wb") as file:
            done = subprocess.run(["sh", "-o", "pipefail", "-c", command] if shutil.which("bash") is None else
                                  ["bash", "-o", "pipefail", "-c", command], cwd=self.dir, stdout=file, check=False,
                                  stderr=subprocess.PIPE, env={**os.environ, "LC_ALL": "C.UTF-8"})
        self.assertEqual(0, done.returncode, done.stderr)
        return target

    def check(self, command, name="a.tar.gz", without=(), holes=True):
        archive = self.archive(command, name)
        subprocess.run(["rm", "-rf", self.into], check=True)
        done = self.lunark("restore", "--from", archive, "--into", self.into)
        self.assertIn("no manifest", done.stderr)
        want = {k: v for k, v in describe(self.tree).items() if k not in without}
        self.assertEqual(want, describe(self.path("into/tree")))
        if holes:
            for name in ("sparse", "hole"):
                self.assertLess(os.stat(self.path("into/tree", name)).st_blocks * 512, MIB)
        self.assertTrue(os.path.samefile(self.path("into/tree/random"), self.path("into/tree/hard")))

    def test_gnu_formats(self):
        for form in ("gnu", "oldgnu", "pax"):
            with self.subTest(form):
                self.check(f"tar --format={form} -czf - tree")

    def test_gnu_sparse(self):
        for form in ("--format=gnu", "--format=oldgnu", "--format=pax --sparse-version=0.0",
                     "--format=pax --sparse-version=0.1", "--format=pax --sparse-version=1.0"):
            with self.subTest(form):
                self.check(f"tar -S {form} -czf - tree")

    def test_gnu_sparse_of_many_pieces(self):
        with open(self.path("tree/pieces"), "wb") as file:
            for number in range(300):
                file.seek(number * 64 * KIB)
                file.write(b"piece %d" % number)
        os.utime(self.path("tree/pieces"), (1400000000, 1400000000))
        os.utime(self.tree, (1400000000, 1400000000))
        for form in ("gnu", "pax --sparse-version=0.0", "pax --sparse-version=0.1", "pax --sparse-version=1.0"):
            with self.subTest(form):
                self.check(f"tar -S --format={form} -czf - tree")

    def test_plain_tar(self):
        for name in ("a.tar", "a.tar.gz"):  # what it is shows in its first bytes
            self.check("tar -cf - tree", name)

    def test_names_before(self):
        self.check("tar -czf - ./tree")

    def test_ustar(self):
        self.check("tar --format=ustar -czf - --exclude='tree/long*' --exclude='tree/deep*' tree",
                   without=[k for k in describe(self.tree) if k.startswith((b"long", b"deep"))])

    def test_attributes_of_gnu_tar(self):
        try:
            os.setxattr(self.path("tree/random"), "user.lunark", b"value \0 of bytes")
        except OSError:
            self.skipTest("no attributes here")
        self.check("tar --xattrs --format=pax -czf - tree")
        self.assertEqual(b"value \0 of bytes", os.getxattr(self.path("into/tree/random"), "user.lunark"))

    def test_several_members(self):
        """Two gzip files one behind the other are one."""
        self.check("tar -cf t tree && { head -c 100000 t | gzip; tail -c +100001 t | gzip -1; }")

    def test_a_file_that_was_appended(self):
        self.write("extra/tree/sub/text", b"newer")
        os.utime(self.path("extra/tree/sub/text"), (1500000000, 1500000000))
        self.archive("tar -cf t tree && tar -rf t -C extra tree/sub/text && gzip < t")
        self.lunark("restore", "--from", self.path("store/a.tar.gz"), "--into", self.into)
        with open(self.path("into/tree/sub/text"), "rb") as file:
            self.assertEqual(b"newer", file.read())

    @needs("pigz")
    def test_pigz(self):
        self.check("tar -cf - tree | pigz")
        self.check("tar -cf - tree | pigz -i -p 4 -b 128")

    @needs("bsdtar")
    def test_bsdtar(self):
        for form in ("pax", "gnutar", "pax --options=hdrcharset=BINARY"):
            with self.subTest(form):
                self.check(f"bsdtar --format={form} -czf - tree")

    @needs("busybox")
    def test_busybox(self):
        self.check("busybox tar -czf - tree")


if __name__ == "__main__":
    main()
