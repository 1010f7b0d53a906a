# SPDX-License-Identifier: MIT
"""What lunark writes is read alike by other tools: GNU tar, bsdtar, busybox, Python's tarfile and Go's archive/tar."""
import glob
import gzip
import os
import shutil
import subprocess
import sys
import tarfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import CACHE, ROOT, Case, describe, make_tree, main  # noqa: E402


class Readers(Case):
    def setUp(self):
        super().setUp()
        self.tree = make_tree(self.path("src"))
        if os.geteuid() == 0:
            os.chown(os.path.join(self.tree, "big.bin"), 12345, 54321)
        self.want = describe(self.tree)

    def archive(self, level="balanced"):
        store = self.path("store-" + level)
        self.lunark("backup", "files", self.tree, "--to", store, "--name", "t", "--compress", level, "--no-latest")
        return glob.glob(store + "/t/t-*.tar.gz")[0]

    def unpack(self, *command, **more):
        into = self.path("into")
        shutil.rmtree(into, ignore_errors=True)
        os.mkdir(into)
        done = subprocess.run(command, cwd=into, stdin=subprocess.DEVNULL, capture_output=True, **more)
        self.assertEqual(0, done.returncode, f"{command}: {done.stderr.decode(errors='replace')}")
        return describe(os.path.join(into, self.tree.lstrip("/")))

    def test_gnu_tar(self):
        for level in ("fast", "balanced", "best", "none", "1", "9"):
            archive = self.archive(level)
            got = self.unpack("tar", "--force-local", "-xpzf", archive)
            self.assertEqual(self.want, got, level)

    def test_gnu_tar_compare(self):
        archive = self.archive()
        done = subprocess.run(["tar", "--force-local", "--compare", "-zf", archive, "-C", "/"], capture_output=True)
        self.assertEqual((0, b""), (done.returncode, done.stdout), done.stderr)

    def test_bsdtar(self):
        self.assertEqual(self.want, self.unpack("bsdtar", "-xpf", self.archive()))

    def test_busybox(self):
        got = self.unpack("busybox", "tar", "-xpzf", self.archive())

        def kept(found):
            """What busybox keeps: times of files in whole seconds, none of directories."""
            return {path: entry[:4] + [n // 10**9 if isinstance(n, int) and n > 10**17 else n
                                       for n in entry[4:] if entry[0] != 4] for path, entry in found.items()}
        self.assertEqual(kept(self.want), kept(got))

    def test_python(self):
        with tarfile.open(self.archive(), "r:gz") as archive:
            members = {m.name.encode(errors="surrogateescape"): m for m in archive.getmembers()}
            prefix = os.fsencode(self.tree.lstrip("/"))
            self.assertEqual({prefix} | {os.path.join(prefix, p) for p in self.want}, set(members))
            for path, entry in self.want.items():
                member = members[os.path.join(prefix, path)]
                if member.isreg():
                    with open(os.path.join(os.fsencode(self.tree), path), "rb") as file:
                        self.assertEqual(file.read(), archive.extractfile(member).read(), path)
                    self.assertEqual(entry[1], member.mode, path)
                    self.assertEqual(entry[2:4], [member.uid, member.gid], path)
                    self.assertAlmostEqual(entry[5] / 10**9, member.mtime, places=5)
            self.assertNotIn("g", {m.type for m in members.values()})

    def test_go(self):
        if not shutil.which("go"):
            self.skipTest("no Go toolchain here: Go's archive/tar was not tried")
        program = self.path("list.go")
        shutil.copy(os.path.join(ROOT, "tests/support/tarlist.go"), program)
        env = dict(os.environ, GOFLAGS="-mod=mod", GOCACHE=os.path.join(CACHE, "go-build"), GO111MODULE="off")
        done = subprocess.run(["go", "run", program, self.archive()], capture_output=True, env=env)
        self.assertEqual(0, done.returncode, done.stderr.decode())
        got = dict(reversed(line.split(" ", 1)) for line in done.stdout.decode().splitlines())
        prefix = os.fsencode(self.tree.lstrip("/"))
        files = {path: entry for path, entry in self.want.items() if entry[0] == 8}
        # Of the names of one file the first in the order of paths has the content, the others are links to it.
        linked = sorted(path for path, entry in files.items() if len(entry) == 8)
        self.assertEqual([b"big.bin", b"zz hard link"], linked)
        want = {os.path.join(prefix, path).hex(): entry[6] for path, entry in files.items() if path != linked[1]}
        self.assertEqual(want, got)

    def test_gzip_tools(self):
        archive = self.archive()
        for tool in (["gzip", "-t"], ["pigz", "-t"], ["busybox", "gunzip", "-t"]):
            done = subprocess.run([*tool, archive], capture_output=True)
            self.assertEqual(0, done.returncode, f"{tool}: {done.stderr.decode()}")
        with gzip.open(archive) as file:
            self.assertEqual(b"\0" * 1024, file.read()[-1024:])


if __name__ == "__main__":
    main()
