# SPDX-License-Identifier: MIT
"""What is odd in a tree: names of any bytes, devices, files that change, vanish or can't be read while they are read.
The archive is whole for other tools, and the manifest says what happened."""
import glob
import os
import random
import stat
import subprocess
import sys
import tarfile
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import LUNARK, Case, describe, environment, load_json, main  # noqa: E402

AS_ROOT = unittest.skipUnless(os.geteuid() == 0, "needs root: devices, another uid")
MIB = 1 << 20


class Odd(Case):
    def setUp(self):
        super().setUp()
        self.tree = self.path("src")
        os.mkdir(self.tree)

    def archive(self):
        (found,) = glob.glob(self.path("store/n/n-2*.tar.gz"))
        return found

    def backup(self, *more, **how):
        self.lunark("backup", "files", self.tree, "--to", self.path("store"), "--name", "n", *more, **how)
        return self.archive()

    def restored(self, *args):
        self.lunark("restore", "--from", self.path("store"), "--into", self.path("into"), *args)
        return describe(self.path("into") + self.tree)

    def unpacked(self, *command):
        into = self.path(command[0])
        os.mkdir(into)
        done = subprocess.run(command, cwd=into, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        self.assertEqual(0, done.returncode, done.stderr)
        return describe(into + self.tree)

    def test_names_of_any_bytes_and_any_length(self):
        base = os.fsencode(self.tree)
        for byte in range(1, 256):
            if byte != ord("/"):
                with open(os.path.join(base, b"n" + bytes([byte])), "wb") as file:
                    file.write(bytes([byte]) * byte)
        for size in (99, 100, 101, 154, 155, 156, 254, 255):
            with open(os.path.join(base, b"l" * size), "wb") as file:
                file.write(b"%d" % size)
            os.symlink(b"t" * size, os.path.join(base, b"s" * size))
        deep = os.open(base, os.O_RDONLY)
        for _ in range(24):  # 24 times 250: beyond PATH_MAX
            os.mkdir(b"d" * 249, dir_fd=deep)
            below = os.open(b"d" * 249, os.O_RDONLY, dir_fd=deep)
            os.close(deep)
            deep = below
        os.close(os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=deep))
        os.close(deep)
        archive = self.backup()
        with tarfile.open(archive) as file:
            longest = max(file.getnames(), key=len)
        self.assertEqual(self.tree[1:] + ("/" + "d" * 249) * 24 + "/leaf", longest)
        # The deep folder goes before the trees are compared: os.walk can't enter it.
        subprocess.run(["rm", "-rf", os.path.join(base, b"d" * 249)], check=True)
        want = describe(self.tree)
        self.assertEqual(254 + 16, len(want))
        for unpack in (("tar", "--force-local", "-xpzf", archive, "--exclude", "d" * 249),
                       ("bsdtar", "-xpf", archive, "--exclude", "d" * 249)):
            self.assertEqual(want, self.unpacked(*unpack))
        self.lunark("restore", "--from", self.path("store"), "--into", self.path("into"))
        into = self.path("into") + self.tree
        self.assertIn("leaf", subprocess.run(["find", into, "-name", "leaf"], capture_output=True, text=True).stdout)
        subprocess.run(["rm", "-rf", os.path.join(into, "d" * 249)], check=True)
        self.assertEqual(want, describe(into))

    @AS_ROOT
    def test_devices_and_fifos(self):
        os.mkfifo(self.path("src/fifo"), 0o620)
        try:
            os.mknod(self.path("src/character"), 0o604 | stat.S_IFCHR, os.makedev(5, 300))
            os.mknod(self.path("src/block"), 0o640 | stat.S_IFBLK, os.makedev(259, 70000))
        except PermissionError:
            self.skipTest("devices can't be made here")
        archive = self.backup()
        with tarfile.open(archive) as file:
            kinds = {os.path.basename(m.name): (m.type, m.devmajor, m.devminor) for m in file}
        self.assertEqual((tarfile.CHRTYPE, 5, 300), kinds["character"])
        self.assertEqual((tarfile.BLKTYPE, 259, 70000), kinds["block"])
        self.assertEqual(tarfile.FIFOTYPE, kinds["fifo"][0])
        want = describe(self.tree)
        self.assertEqual(want, self.restored("--devices"))
        self.assertEqual(want, self.unpacked("tar", "--force-local", "-xpzf", archive))
        for name in ("character", "block"):
            self.assertEqual(os.lstat(self.path("src", name)).st_rdev,
                             os.lstat(self.path("into") + self.tree + "/" + name).st_rdev)

    def large(self, name, mib=96, seed=1):
        data = random.Random(seed).randbytes(mib * MIB)
        with open(self.path("src", name), "wb") as file:
            file.write(data)
        return data

    def begun(self, *command):
        """A backup that has begun to write, slowly enough that most of the first file is not read yet."""
        child = subprocess.Popen([*command, LUNARK, "backup", "files", self.tree, "--to", self.path("store"), "--name", "n",
                                  "--memory", "8M", "--limit-rate", "24M", "--log-format", "json", "--progress", "none"],
                                 env=environment(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.addCleanup(lambda: (child.poll() is None and child.kill(), child.wait(), child.stderr.close()))
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and child.poll() is None:
            written = sum(os.path.getsize(f) for f in glob.glob(self.path("store/**"), recursive=True, include_hidden=True)
                          if os.path.isfile(f))
            if written > 4 * MIB:
                return child
            time.sleep(0.02)
        self.fail("the backup did not begin")

    def ended(self, child, status):
        _, err = child.communicate(timeout=60)
        self.assertEqual(status, child.returncode, err)
        (manifest,) = map(load_json, glob.glob(self.path("store/n/*.manifest.json")))
        return {os.path.relpath("/" + w["path"], self.tree): w["kind"] for w in manifest["warnings"]}, manifest, err

    def test_shrinks_and_vanishes(self):
        data = self.large("a")
        self.write("src/b", "goes")
        self.write("src/c", "stays")
        child = self.begun()
        os.truncate(self.path("src/a"), 3 * MIB)
        os.unlink(self.path("src/b"))
        warned, manifest, err = self.ended(child, 0)
        self.assertEqual({"a": "changed", "b": "vanished"}, warned)
        self.assertEqual((2, 0), (manifest["warning_count"], manifest["unreadable"]))
        for name in ("a", "b"):
            self.assertIn(f"{self.tree[1:]}/{name}", err)
        got = self.path("got")
        os.mkdir(got)
        subprocess.run(["tar", "--force-local", "-xzf", self.archive(), "-C", got], check=True)
        with open(got + self.tree + "/a", "rb") as file:
            found = file.read()
        self.assertEqual(len(data), len(found))  # padded, as tar does
        whole = len(found.rstrip(b"\0"))
        self.assertLess(whole, len(data))
        self.assertEqual(data[:whole], found[:whole])
        self.assertEqual(["a", "c"], sorted(os.listdir(got + self.tree)))
        self.assertEqual({b"a", b"c"}, set(self.restored()))

    def test_grows(self):
        data = self.large("a")
        self.write("src/b", "stays")
        child = self.begun()
        with open(self.path("src/a"), "ab") as file:
            file.write(b"more" * MIB)
        warned, _, _ = self.ended(child, 0)
        self.assertEqual({"a": "changed"}, warned)
        with tarfile.open(self.archive()) as file:
            members = file.getmembers()
            self.assertEqual(["src", "a", "b"], [os.path.basename(m.name) for m in members])
            self.assertEqual(data, file.extractfile(members[1]).read())

    @AS_ROOT
    def test_can_not_be_read_any_more(self):
        """Rights that go away while the backup runs."""
        self.large("a")
        self.write("src/b", "closed")
        self.write("src/c/x", "closed folder")
        self.write("src/d", "stays")
        os.chmod(self.dir, 0o777)
        child = self.begun("setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups")
        os.chmod(self.path("src/b"), 0)
        os.chmod(self.path("src/c"), 0)
        warned, manifest, _ = self.ended(child, 5)
        self.assertEqual({"b": "unreadable", "c": "unreadable"}, warned)
        self.assertEqual(2, manifest["unreadable"])
        listed = subprocess.run(["tar", "--force-local", "-tzf", self.archive()], check=True, capture_output=True, text=True)
        self.assertEqual(["src", "a", "c", "d"], [os.path.basename(n.rstrip("/")) for n in listed.stdout.split()])

    def test_a_folder_that_vanishes(self):
        self.large("a")
        self.write("src/b/x", "goes")
        child = self.begun()
        subprocess.run(["rm", "-r", self.path("src/b")], check=True)
        warned, _, _ = self.ended(child, 0)
        self.assertEqual({"b": "vanished"}, warned)
        subprocess.run(["tar", "--force-local", "-tzf", self.archive()], check=True, capture_output=True)

    def test_engines_at_run_time(self):
        """Each engine gives what the others read; one that is not built in is said to be missing."""
        self.write("src/text", "a text that repeats\n" * 50000)
        script = self.write("s.lua", 'local archive, stream = require "lunark.archive", require "lunark.stream"\n'
                            'for _, name in ipairs { "zlib", "libdeflate", "isal" } do\n'
                            '  local made, err = archive.create { roots = { arg[1] }, engine = name, level = "fast" }\n'
                            '  if archive.engines()[name] then\n    local out <close> = require("lunark.file").open(arg[2] '
                            '.. "/" .. name, "w")\n    print(name, assert(made:stream():to_file(out)))\n'
                            '  else\n    print(name, "-", err)\n  end\nend\n')
        os.mkdir(self.path("out"))
        out = self.lunark("run", "--allow", "read=" + self.tree, "--allow", "write=" + self.path("out"), script, self.tree,
                          self.path("out")).stdout
        self.assertEqual(["zlib", "libdeflate", "isal"], [line.split("\t")[0] for line in out.splitlines()])
        for line in out.splitlines():
            name, size, *why = line.split("\t")
            if size == "-":
                self.assertIn(f"engine '{name}'", why[0])
                continue
            with tarfile.open(self.path("out", name)) as file:
                self.assertEqual("a text that repeats\n" * 50000, file.extractfile(file.getmembers()[1]).read().decode())
        self.assertTrue(glob.glob(self.path("out/zlib")))


if __name__ == "__main__":
    main()
