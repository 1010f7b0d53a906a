# SPDX-License-Identifier: MIT
"""Single files and globs out of archives: `lunark restore --path`, with and without an index."""
import glob
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import Case, describe, main, make_tree  # noqa: E402


class Paths(Case):
    """Against a local store."""

    def setUp(self):
        super().setUp()
        self.tree = make_tree(self.path("tree"))
        os.chmod(self.path("tree", "d1"), 0o710)
        os.chmod(self.path("tree", "d1", "e1"), 0o700)
        self.base = self.tree.lstrip("/")
        self.env, self.seconds = {}, False
        self.store = self.path("store")
        self.backup()

    def backup(self):
        self.lunark("backup", "files", self.tree, "--to", self.store, "--name", "t", "--no-latest", env=self.env)

    def archive(self):
        (found,) = glob.glob(self.path("store", "t", "t-2*.tar.gz"))
        return found

    def restore(self, *globs, status=0, more=(), source=None):
        self.into = self.path(f"into-{len(os.listdir(self.dir))}")
        words = [word for one in globs for word in ("--path", one)]
        return self.lunark("restore", "--from", source or self.store, "--into", self.into, *words, *more, status=status,
                           env=self.env)

    def restored(self, *globs, more=(), source=None):
        """Paths below the tree, each compared with the original."""
        self.log = self.restore(*globs, more=more, source=source).stderr
        found = describe(os.path.join(self.into, self.base))
        self.compare(found)
        return sorted(os.fsdecode(path) for path in found)

    def compare(self, found):
        whole = describe(self.tree)
        for path, entry in found.items():
            if self.seconds:  # times of the gnu format have no fractions
                entry, whole[path] = entry[:4], whole[path][:4]
            elif entry[0] == 8:  # the name of the first link is another one when not all links are there
                self.assertEqual(whole[path][:7], entry[:7], path)
            else:
                self.assertEqual(whole[path], entry, path)

    def test_one_file_with_the_directories_above_it(self):
        found = self.restored(f"{self.base}/d1/e1/file 1.txt")
        self.assertEqual(["d1", "d1/e1", "d1/e1/file 1.txt"], found)

    def test_a_directory_is_all_below_it(self):
        wanted = {os.path.relpath(os.path.join(folder, name), self.tree) for folder, folders, files in
                  os.walk(self.path("tree", "d2")) for name in folders + files} | {"d2"}
        self.assertEqual(sorted(wanted), self.restored("/" + self.base + "/d2/"))

    def test_globs(self):
        found = self.restored(f"{self.base}/d[34]/*/file ?.txt", f"{self.base}/*leaf", f"{self.base}/big.*")
        files = [path for path in found if not os.path.isdir(os.path.join(self.tree, path))]
        self.assertEqual(["big.bin", "d3/e3/file 3.txt", "d4/e4/file 4.txt"], files[:3])
        self.assertEqual(["leaf"], [os.path.basename(path) for path in files[3:]])

    def test_names_of_every_kind(self):
        for name in ("with\nnewline", "ünïcode ☃", "back\\\\slash", "fifo", "dangling", "sparse.bin", "empty"):
            self.assertEqual([name.replace("\\\\", "\\")], self.restored(f"{self.base}/{name}"))

    def test_a_hard_link_without_its_target_is_a_file(self):
        self.assertEqual(["zz hard link"], self.restored(f"{self.base}/zz*"))
        os.link(self.path("tree", "big.bin"), self.path("tree", "zz other"))
        os.unlink(self.archive())
        self.backup()
        self.assertEqual(["zz hard link", "zz other"], self.restored(f"{self.base}/zz*"))
        first, second = (os.path.join(self.into, self.base, name) for name in ("zz hard link", "zz other"))
        self.assertEqual(os.stat(first).st_ino, os.stat(second).st_ino)
        self.assertEqual(["big.bin", "zz hard link"], self.restored(f"{self.base}/zz hard*", f"{self.base}/big.bin"))

    def test_map_and_strip(self):
        self.restore(f"{self.base}/d1/e1/file 1.txt", more=("--map", f"{self.base}/d1=x"))
        self.assertEqual(["x"], os.listdir(self.into))
        self.restore(f"{self.base}/zz hard link", more=("--strip", str(self.base.count("/") + 1)))
        self.assertEqual(["zz hard link"], os.listdir(self.into))

    def test_what_matches_nothing(self):
        failed = self.restore(f"{self.base}/nothing", f"{self.base}/d1", "no/where", status=1)
        self.assertIn(f"matches {self.base}/nothing, no/where", failed.stderr)
        self.assertTrue(os.path.isdir(os.path.join(self.into, self.base, "d1")))
        self.assertIn("--path is empty", self.restore("", status=2).stderr)

    def test_what_is_there(self):
        path = f"{self.base}/d1/e1/file 1.txt"
        self.restore(path)
        again = self.lunark("restore", "--from", self.store, "--into", self.into, "--path", path, status=2)
        self.assertIn("is not empty", again.stderr)
        self.lunark("restore", "--from", self.store, "--into", self.into, "--path", path, "--existing", "replace")

    def test_output_of_a_program(self):
        script = self.write("s.lua", """
local job <close> = assert(require("lunark.backup").open { to = { arg[1] } })
assert(job:save("app", { program = { "echo", "x" }, suffix = ".dump" }))
assert(job:finish())
""")
        allow = [word for kind in ("exec", "read", "write") for word in ("--allow", kind + "=*")]
        self.lunark("run", *allow, script, self.path("other"))
        failed = self.restore("x", status=2, source=self.path("other"))
        self.assertIn("output of a program", failed.stderr)

    def foreign(self, command):
        os.makedirs(self.path("foreign"), exist_ok=True)
        archive = self.path("foreign", "x.tar.gz")
        subprocess.run(command.format(archive), shell=True, check=True, cwd=self.dir)
        return archive

    def test_archives_of_other_tools(self):
        for command in ("tar -cf - tree | gzip > {}", "tar --format=gnu -cf - ./tree | pigz > {}",
                        "tar --format=posix -czf {} tree"):
            source = self.foreign(command)
            self.base, self.seconds = "tree", True
            self.assertEqual(["d1", "d1/e1", "d1/e1/file 1.txt", "zz hard link"],
                             self.restored("tree/d1/*/file 1.txt", "tree/zz*", source=source))
            self.assertIn("has no index; reading the archive whole", self.log)


if __name__ == "__main__":
    main()
