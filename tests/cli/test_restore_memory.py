#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Restoring many directories, whose modes and times wait for the end, stays within the memory of a restore."""
import io
import os
import resource
import sys
import tarfile
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import Case, main  # noqa: E402


class RestoreMemory(Case):
    COUNT = 80000  # more than are kept until the end

    def setUp(self):
        if os.access("/dev/shm", os.W_OK):  # so many directories take minutes on a disk
            tempfile.tempdir = "/dev/shm"
            self.addCleanup(setattr, tempfile, "tempdir", None)
        super().setUp()

    def test_many_directories(self):
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w:gz", compresslevel=1, format=tarfile.PAX_FORMAT) as tar:
            for number in range(-1, self.COUNT):
                member = tarfile.TarInfo(f"root/{number:05d}" if number >= 0 else "root")
                member.type, member.mode, member.mtime = tarfile.DIRTYPE, 0o711, 1000000000.5
                tar.addfile(member)
                tar.members = []  # this process must stay small too: what a child has before exec counts for it
        os.mkdir(self.path("store"))
        self.write("store/many.tar.gz", data.getvalue())
        self.lunark("restore", "--from", self.path("store", "many.tar.gz"), "--into", self.path("into"))
        self.assertEqual(self.COUNT, len(os.listdir(self.path("into", "root"))))
        for name in ("", "00000", "65535", "65536", f"{self.COUNT - 1}"):
            found = os.stat(self.path("into", "root", name))
            self.assertEqual((0o711, 1000000000500000000), (found.st_mode & 0o7777, found.st_mtime_ns))
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        self.assertLess(peak, 64 << 10, "KiB at most")


if __name__ == "__main__":
    main()
