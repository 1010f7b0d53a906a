# SPDX-License-Identifier: MIT
"""Sources and stores that refuse: what a user without rights, a full disk or a wrong kind of file leads to. Each ends
with the status that the guide promises; earlier backups and `latest` stay, and nothing temporary is left."""
import os
import shutil
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import Case, load_json, main  # noqa: E402

ROOT_ONLY = unittest.skipUnless(os.geteuid() == 0, "needs root: another uid, mounts")
NOBODY = {"user": 12345, "group": 12345, "extra_groups": []}


def files_of(base):
    return sorted(os.path.relpath(os.path.join(folder, name), base) for folder, _, files in os.walk(base) for name in files)


class Refused(Case):
    def setUp(self):
        super().setUp()
        self.write("data/open", "open")
        self.write("data/secret", "secret", mode=0o600)
        os.makedirs(self.path("data", "closed"), 0o700)
        self.store = self.path("store")
        os.makedirs(self.store)
        os.chown(self.store, 12345, 12345)

    def nobody(self, *args, status, says=""):
        result = self.lunark(*args, status=status, **NOBODY)
        self.assertIn(says, result.stderr)
        return result

    @ROOT_ONLY
    def test_a_source_that_can_not_be_read(self):
        for name in ("secret", "closed", "closed/x"):
            self.nobody("backup", "files", self.path("data", name), "--to", self.store, status=3,
                        says=f"{name} can't be archived: permission denied")
        self.assertEqual([], files_of(self.store))
        self.nobody("backup", "files", self.path("data"), "--to", self.store, status=5, says="data/secret: can't be opened")

    @ROOT_ONLY
    def test_a_store_that_can_not_be_written(self):
        for place in (self.path("data"), self.path("data", "closed", "x"), "/proc/store"):
            self.nobody("backup", "files", self.path("data", "open"), "--to", place, status=3)
        self.assertEqual(["open", "secret"], files_of(self.path("data")))

    @ROOT_ONLY
    def test_a_store_that_can_not_be_read(self):
        self.nobody("backup", "files", self.path("data", "open"), "--to", self.store, status=0)
        folder = self.path("store", "open")
        for name in sorted(os.listdir(folder), reverse=True):
            if name.startswith("open-2"):
                os.chown(os.path.join(folder, name), 0, 0)
                os.chmod(os.path.join(folder, name), 0o600)
                self.nobody("restore", "--from", self.store, "--into", self.path("store", "into"), status=3,
                            says="permission denied")
        os.chown(folder, 0, 0)
        os.chmod(folder, 0o700)
        self.nobody("restore", "--from", self.store, "--item", "open", "--into", self.path("store", "into"), status=3)
        os.chown(self.store, 0, 0)
        os.chmod(self.store, 0o700)
        self.nobody("list", self.store, status=3, says=f"{self.store}")

    def test_a_store_that_is_a_file(self):
        for args in (("backup", "files", self.path("data"), "--to"), ("list",)):
            result = self.lunark(*args, self.path("data", "open"), status=3)
            self.assertIn("data/open is a file, a directory expected", result.stderr)

    @ROOT_ONLY
    def test_a_target_that_can_not_be_written_is_named(self):
        self.nobody("backup", "files", self.path("data", "open"), "--to", self.store, status=0)
        target = self.path("data", "closed", "into")
        result = self.nobody("restore", "--from", self.store, "--into", target, status=1)
        self.assertIn(f"lunark: {target}: permission denied\n", result.stderr)


class Links(Case):
    def test_a_path_that_is_a_link_to_a_directory_is_told(self):
        self.write("real/file", "file")
        os.symlink("real", self.path("link"))
        for path in (self.path("link"), self.path("link") + "/"):
            result = self.lunark("backup", "files", path, "--to", self.path("store"))
            self.assertIn(f"only the symbolic link is stored; to store the directory give {self.path('real')}", result.stderr)
        self.lunark("backup", "files", self.path("link"), "--to", self.path("store"), "--strict", status=5)
        manifests = [f for f in files_of(self.path("store", "link")) if f.endswith("manifest.json")]
        for name in manifests:
            self.assertEqual(["link"], [w["kind"] for w in load_json(self.path("store", "link", name))["warnings"]])
        self.lunark("backup", "files", self.path("real"), "--to", self.path("store"), "--strict")


class Full(Case):
    """A store on a file system of 8 MiB."""

    def setUp(self):
        super().setUp()
        self.small = self.path("small")
        os.makedirs(self.small)
        if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", self.small],
                                               stderr=subprocess.DEVNULL, check=False).returncode != 0:
            raise unittest.SkipTest("needs root and mounts: a file system that is full")
        self.addCleanup(subprocess.run, ["umount", "-l", self.small], check=True)
        self.write("data/a", "a")
        self.write("big/random", os.urandom(20 << 20))
        self.lunark("backup", "files", self.path("data"), "--to", self.path("small", "store"))
        self.before = files_of(self.small)

    def fill(self, leave):
        info = os.statvfs(self.small)
        with open(self.path("small", "fill"), "wb") as file:
            file.write(bytes(info.f_bavail * info.f_frsize - leave))

    def test_a_disk_that_runs_full_leaves_nothing(self):
        result = self.lunark("backup", "files", self.path("big"), "--to", self.path("small", "store"), status=1)
        self.assertIn("no space left on device\nhint: make room", result.stderr)
        self.assertEqual(self.before, files_of(self.small))

    def test_a_disk_without_room_is_not_written_to(self):
        self.write("mine/policies/dump.lua", """
return require "lunark.policy" {
  api = 1, name = "dump", summary = "a program", needs = { exec = { "sh" } },
  backup = function(job) job:save("n", { program = { "sh", "-c", "touch began; echo dump" } }) end,
}
""")
        self.fill(leave=0)
        result = self.lunark("backup", "dump", "--scripts", self.path("mine"), "--to", self.path("small", "store"),
                             status=3, cwd=self.dir)
        self.assertIn("no space left on device\nhint: make room", result.stderr)
        self.assertFalse(os.path.exists(self.path("began")), "the source was read all the same")
        self.assertEqual([*self.before, "fill"], sorted(files_of(self.small), key=lambda name: name == "fill"))

    def test_the_other_store_is_whole(self):
        other = self.path("other")
        result = self.lunark("backup", "files", self.path("big"), "--to", self.path("small", "store"), "--to", other, status=1)
        self.assertIn(self.path("small"), result.stderr)
        self.assertEqual(self.before, files_of(self.small))
        self.lunark("restore", "--from", other, "--into", self.path("into"))
        self.assertEqual((20 << 20), os.path.getsize(self.path("into", self.path("big", "random").lstrip("/"))))

    def test_full_at_the_manifest(self):
        self.fill(leave=8192)
        latest = os.stat(self.path("small", "store", "data", "data-latest.tar.gz")).st_ino
        result = self.lunark("backup", "files", self.path("data"), "--to", self.path("small", "store"), status=1)
        self.assertIn("hint: make room", result.stderr)
        self.assertEqual(latest, os.stat(self.path("small", "store", "data", "data-latest.tar.gz")).st_ino)
        self.assertEqual([], [f for f in files_of(self.small) if f.endswith(".tmp")])
        shown = self.lunark("list", self.path("small", "store")).stdout
        self.assertEqual(2, len(shown.splitlines()), shown)

    def test_a_target_that_runs_full(self):
        self.lunark("backup", "files", self.path("big"), "--to", self.path("other"))
        restore = ("restore", "--from", self.path("other"), "--into", self.path("small", "into"))
        self.assertRegex(self.lunark(*restore, status=2).stderr, r"\d+ bytes are free for \S+, the backup has \d+")
        self.assertFalse(os.path.exists(self.path("small", "into")))
        result = self.lunark(*restore, "--no-space-check", status=1)
        self.assertIn("random can't be written: no space left on device", result.stderr)
        shutil.rmtree(self.path("small", "into"))


if __name__ == "__main__":
    main()
