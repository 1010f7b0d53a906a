#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What lunark restore does with names, owners, modes, files that are there, free space and standard output."""
import glob
import gzip
import json
import os
import re
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import Case, main  # noqa: E402

AS_ROOT = unittest.skipUnless(os.geteuid() == 0, "needs root: another owner")


class Options(Case):
    def setUp(self):
        super().setUp()
        self.store, self.into = self.path("store"), self.path("into")
        self.root = self.path("src")[1:]

    def backup(self, *files):
        for name in files or ("a/b/deep", "a/file", "top"):
            self.write("src/" + name, "from the archive " + name)
            os.utime(self.path("src", name), (1500000000, 1500000000))
        self.lunark("backup", "files", self.path("src"), "--to", self.store, "--name", "data")

    def restore(self, *args, **more):
        return self.lunark("restore", "--from", self.store, "--into", self.into, *args, **more)

    def found(self):
        return sorted(os.path.relpath(os.path.join(folder, name), self.into)
                      for folder, _, names in os.walk(self.into) for name in names)

    def test_strip_and_map(self):
        self.backup()
        depth = str(self.root.count("/") + 1)
        self.restore("--strip", depth)
        self.assertEqual(["a/b/deep", "a/file", "top"], self.found())
        subprocess.run(["rm", "-rf", self.into], check=True)
        self.restore("--map", f"/{self.root}/a/b=elsewhere/b", "--map", f"{self.root}/a=.", "--strip", depth)
        self.assertEqual(["elsewhere/b/deep", "file", "top"], self.found())
        for wrong in ("a", "a=/b", "a=b/../../c"):
            failed = self.lunark("restore", "--from", self.store, "--into", self.path("other"), "--map", wrong, status=2)
            self.assertIn("--map " + wrong, failed.stderr)
            self.assertFalse(os.path.exists(self.path("other")))

    def test_what_is_there(self):
        self.backup()
        base = "into/" + self.root
        cases = {
            "error": (1, "mine older", "mine newer"), "skip": (0, "mine older", "mine newer"),
            "keep-newer": (0, "from the archive a/file", "mine newer"),
            "replace": (0, "from the archive a/file", "from the archive top"),
        }
        for existing, (status, older, newer) in cases.items():
            subprocess.run(["rm", "-rf", self.into], check=True)
            os.utime(self.write(base + "/a/file", "mine older"), (1400000000, 1400000000))
            os.utime(self.write(base + "/top", "mine newer"), (1600000000, 1600000000))
            self.write("into/unrelated", "mine")
            done = self.restore("--existing", existing, "--json", status=status)
            for name, content in (("a/file", older), ("top", newer)):
                with open(self.path(base, name), encoding="utf-8") as file:
                    self.assertEqual(content, file.read(), existing)
            self.assertTrue(os.path.exists(self.into + "/unrelated"))
            if status:
                self.assertRegex(done.stderr, "exists in the target")
            else:
                self.assertEqual({"skip": 2, "keep-newer": 1, "replace": 0}[existing], json.loads(done.stdout)["skipped"])
                self.assertTrue(os.path.exists(self.path(base, "a/b/deep")))
        self.assertIn("--existing skip", self.restore("--overwrite", "--existing", "skip", status=2).stderr)
        self.assertEqual([], glob.glob(self.into + "/**/.lunark*", recursive=True, include_hidden=True))

    def test_modes(self):
        self.backup("secret", "tool")
        os.chmod(self.path("src/secret"), 0o666)
        os.chmod(self.path("src/tool"), 0o4755)
        self.backup("other")
        self.restore("--mode", "umask", preexec_fn=lambda: os.umask(0o027))
        modes = [os.stat(self.path(self.into, self.root, name)).st_mode & 0o7777 for name in ("secret", "tool", "")]
        self.assertEqual([0o640, 0o750, 0o750], modes)
        subprocess.run(["rm", "-rf", self.into], check=True)
        self.restore(preexec_fn=lambda: os.umask(0o027))
        modes = [os.stat(self.path(self.into, self.root, name)).st_mode & 0o7777 for name in ("secret", "tool", "")]
        self.assertEqual([0o666, 0o4755 if os.geteuid() == 0 else 0o755, 0o755], modes)

    @AS_ROOT
    def test_owners(self):
        self.backup("tool")
        os.chown(self.path("src/tool"), 12345, 54321)
        os.chmod(self.path("src/tool"), 0o6755)
        self.backup("other")
        path = self.path(self.into, self.root, "tool")
        for owner, expected in (("auto", (12345, 54321, 0o6755)), ("keep", (12345, 54321, 0o6755)), ("none", (0, 0, 0o755))):
            subprocess.run(["rm", "-rf", self.into], check=True)
            self.restore("--owner", owner)
            s = os.stat(path)
            self.assertEqual(expected, (s.st_uid, s.st_gid, s.st_mode & 0o7777), owner)
        os.chmod(self.dir, 0o777)
        subprocess.run(["rm", "-rf", self.into], check=True)
        user = {"user": 1234, "group": 1234, "extra_groups": []}
        self.assertRegex(self.restore("--owner", "keep", status=1, **user).stderr, r"owner of \S+ can't be set to")
        subprocess.run(["rm", "-rf", self.into], check=True)
        self.restore(**user)  # without owners, and without what would be another one's right
        self.assertEqual((1234, 0o755), (os.stat(path).st_uid, os.stat(path).st_mode & 0o7777))

    def test_dry_run(self):
        self.backup()
        done = self.restore("--dry-run", "--json")
        plan = json.loads(done.stdout)
        self.assertEqual((True, "data", 3), (plan["dry_run"], plan["item"], plan["files"]))
        self.assertGreater(plan["free"], 0)
        self.assertRegex(done.stderr, r"would restore data/data-\S+ from \S+ \(\S+ \S+ stored; 3 files, 68 B\) into \S+, "
                         r"\S+ \S+ free")
        self.assertFalse(os.path.exists(self.into))

    def test_free_space(self):
        self.backup()
        (path,) = glob.glob(self.store + "/data/*.manifest.json")
        with open(path, encoding="utf-8") as file:
            text = file.read()
        with open(path, "w", encoding="utf-8") as file:
            file.write(re.sub(r'"raw_size": \d+', '"raw_size": 1125899906842624', text))
        for more in ((), ("--dry-run",)):
            failed = self.restore(*more, status=2)
            self.assertRegex(failed.stderr, r"\d+ bytes are free for \S+/into, the backup has 1125899906842624")
            self.assertIn("--no-space-check", failed.stderr)
            self.assertFalse(os.path.exists(self.into))
        self.restore("--no-space-check")
        self.assertEqual(3, len(self.found()))

    def test_standard_output(self):
        script = self.write("save.lua", """
return require("lunark.policy") {
  api = 1, name = "words", summary = "words", needs = { exec = { "seq" } },
  backup = function(job) job:save("words", { program = { "seq", "100000" }, suffix = ".txt" }) end,
}""")
        os.makedirs(self.path("scripts/policies"))
        os.rename(script, self.path("scripts/policies/words.lua"))
        self.lunark("--scripts", self.path("scripts"), "backup", "words", "--to", self.store)
        expected = "".join(f"{n}\n" for n in range(1, 100001))
        done = self.lunark("restore", "--from", self.store, "--to-stdout")
        self.assertEqual(expected, done.stdout)
        child = self.start("restore", "--from", self.store, "--to-stdout")
        self.assertEqual(b"1\n2\n", child.stdout.read(4))
        child.stdout.close()
        self.assertEqual(1, child.wait(30))
        self.assertIn(b"the reader closed the pipe", child.stderr.read())
        for more, words in (((), "--into DIR is missing"), (("--to-stdout", "--into", self.into), "exclude"),
                            (("--to-stdout", "--json"), "--json")):
            self.assertIn(words, self.lunark("restore", "--from", self.store, *more, status=2).stderr)
        archive = self.lunark("backup", "files", self.path("scripts"), "--to", self.path("files"), "--name", "f")
        self.assertNotIn("warn", archive.stderr)
        failed = self.lunark("restore", "--from", self.path("files"), "--to-stdout", status=2)
        self.assertIn("is an archive of files", failed.stderr)

    def test_output_that_is_there_or_too_large(self):
        os.makedirs(self.store)
        os.makedirs(self.into)
        with gzip.open(self.store + "/db.dump.gz", "wb") as file:
            file.write(b"new")
        os.utime(self.write("into/db.dump", "old"), (4000000000, 4000000000))
        for existing, status, content, skipped in (("error", 1, "old", None), ("skip", 0, "old", 1),
                                                   ("keep-newer", 0, "old", 1), ("replace", 0, "new", 0)):
            done = self.lunark("restore", "--from", self.store + "/db.dump.gz", "--into", self.into, "--existing", existing,
                               "--json", status=status)
            with open(self.into + "/db.dump", encoding="utf-8") as file:
                self.assertEqual(content, file.read(), existing)
            self.assertEqual(skipped, json.loads(done.stdout).get("skipped"))
            self.assertEqual(["db.dump"], os.listdir(self.into))
        with gzip.open(self.store + "/bomb.gz", "wb") as file:
            for _ in range(300):
                file.write(bytes(1 << 20))
        for more in ((), ("--max-size", "10M")):
            failed = self.lunark("restore", "--from", self.store + "/bomb.gz", "--into", self.path("other"), *more, status=4)
            self.assertRegex(failed.stderr, r"more than the \d+ bytes that it may have")
            self.assertIn("--max-ratio", failed.stderr)
            self.assertEqual([], os.listdir(self.path("other")))
        self.lunark("restore", "--from", self.store + "/bomb.gz", "--into", self.path("other"), "--max-ratio", "0")

    def test_killed_in_the_middle_leaves_no_half_file(self):
        for number in range(6):
            self.write(f"src/{number}", os.urandom(3 << 20))
        self.lunark("backup", "files", self.path("src"), "--to", self.store, "--name", "data")
        child = self.start("restore", "--from", self.store, "--into", self.into, "--limit-rate", "12M")
        self.assertIsNotNone(child)
        while len(self.found()) < 3:
            self.assertIsNone(child.poll(), "it ended before")
        child.kill()
        child.wait()
        whole = [name for name in self.found() if not os.path.basename(name).startswith(".lunark-")]
        self.assertTrue(whole)
        for name in whole:
            self.assertEqual(3 << 20, os.path.getsize(self.path(self.into, name)))


if __name__ == "__main__":
    main()
