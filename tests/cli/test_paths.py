# SPDX-License-Identifier: MIT
"""Single files and globs out of archives: `lunark restore --path`, with and without an index."""
import glob
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import read_index  # noqa: E402
from harness import Case, describe, main, make_tree  # noqa: E402


class Archive(Case):
    """A backup of a tree, and what is restored of it."""

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

    def records(self, *more, source=None):
        lines = self.lunark("list", "--files", source or self.store, "--json", *more, env=self.env).stdout.splitlines()
        return [json.loads(line) for line in lines]

    # --- of both stores ---

    def one_file_with_the_directories_above_it(self):
        found = self.restored(f"{self.base}/d1/e1/file 1.txt")
        self.assertEqual(["d1", "d1/e1", "d1/e1/file 1.txt"], found)

    def hard_link_without_its_target(self):
        self.assertEqual(["zz hard link"], self.restored(f"{self.base}/zz*"))

    # --- damage: what the index says is not believed, and what is wrong is not written ---

    def index_parts(self, data):
        """Offsets of footer, list and blocks."""
        footer, blocks, _, _ = read_index.read(data)
        return len(data) - 94, footer["list_at"], [block[0] for block in blocks]

    def damaged(self, change):
        """Restores from an archive of which bytes were changed, under its own name in another folder."""
        with open(self.archive(), "rb") as file:
            data = file.read()
        broken = self.write("broken.tar.gz", bytes(change(bytearray(data), *self.index_parts(data))))
        return self.restored(f"{self.base}/d1/e1", f"{self.base}/big.bin", source=broken)

    def an_index_that_is_damaged(self):
        def flip(data, at):
            data[at] ^= 1
            return data
        cases = (
            ("has no index", lambda data, footer, list_at, blocks: data[:footer]),
            ("has no index", lambda data, footer, list_at, blocks: flip(data, footer + 13)),
            ("is damaged", lambda data, footer, list_at, blocks: flip(data, footer + 40)),
            ("is damaged", lambda data, footer, list_at, blocks: flip(data, list_at + 35)),
            ("is damaged", lambda data, footer, list_at, blocks: flip(data, blocks[0] + 60)),
            ("is damaged", lambda data, footer, list_at, blocks: flip(data, blocks[0] + 14)),
        )
        wanted = self.restored(f"{self.base}/d1/e1", f"{self.base}/big.bin")
        self.assertNotIn("whole", self.log)
        for message, change in cases:
            self.assertEqual(wanted, self.damaged(change))
            self.assertRegex(self.log, message + ".*reading the archive whole")


class Paths(Archive):
    """Against a local store."""

    def test_one_file(self):
        self.one_file_with_the_directories_above_it()

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
        self.hard_link_without_its_target()
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

    def to_stdout(self, *globs, status=0):
        words = [word for one in globs for word in ("--path", one)]
        return self.lunark("restore", "--from", self.store, "--to-stdout", *words, status=status, env=self.env)

    def test_to_stdout(self):
        self.assertEqual("leaf", self.to_stdout(f"{self.base}/*/leaf").stdout)
        for message, globs in (("say which with --path", ()), ("several files", (f"{self.base}/d1", f"{self.base}/d2")),
                               ("is a link", (f"{self.base}/zz*",))):
            self.assertIn(message, self.to_stdout(*globs, status=2).stderr)
        self.assertIn("no file in", self.to_stdout("x", status=1).stderr)

    def test_from_a_script(self):
        script = self.write("s.lua", """
local archive = require "lunark.archive"
local store = assert(require("lunark.store").open(arg[1]))
local count = 0
for record, err in archive.contents(store, store.key, { "*/d1" }) do
  assert(record, err)
  count = count + 1
end
print(count)
local pieces <close> = assert(archive.pieces(store, store.key, { "*/d1/e1" }))
local done <close> = assert(archive.extract(pieces.stream, { into = arg[2] }))
print(assert(done:wait()).directories)
""")
        allow = [word for kind in ("read", "write") for word in ("--allow", kind + "=*")]
        out = self.lunark("run", *allow, script, "file://" + self.archive(), self.path("out")).stdout.split()
        below = sum(len(folders) + len(files) for _, folders, files in os.walk(self.path("tree", "d1")))
        self.assertEqual([str(below + 1), "3"], out)

    def test_what_is_there(self):
        path = f"{self.base}/d1/e1/file 1.txt"
        self.restore(path)
        again = self.lunark("restore", "--from", self.store, "--into", self.into, "--path", path, status=2,
                            env=self.env)
        self.assertIn("is not empty", again.stderr)
        self.lunark("restore", "--from", self.store, "--into", self.into, "--path", path, "--existing", "replace",
                    env=self.env)

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

    def test_list_of_files(self):
        with tarfile.open(self.archive()) as tar:
            whole = [(e.name, e.size, e.mode) for e in tar if e.name.isprintable()]
        found = [(r["path"], r["size"], int(r["mode"], 8)) for r in self.records()]
        self.assertEqual(whole, [one for one in found if one[0].isprintable() and "\\xff" not in one[0]][:len(whole)])
        self.assertEqual(len(describe(self.tree)) + 1, len(found))
        (big,) = self.records("--path", f"{self.base}/big.bin")
        with open(self.path("tree", "big.bin"), "rb") as file:
            self.assertEqual(hashlib.file_digest(file, "sha256").hexdigest(), big["sha256"])
        self.assertEqual("file", big["type"])
        text = self.lunark("list", "--files", self.store, "--path", f"{self.base}/d1", env=self.env).stdout.splitlines()
        self.assertRegex(text[0], rf"^drwx--x--- +0 \d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\dZ {self.base}/d1$")
        failed = self.lunark("list", "--files", self.store, "--path", "no/where", status=1, env=self.env)
        self.assertIn("matches no/where", failed.stderr)
        self.assertIn("go with --files", self.lunark("list", self.store, "--path", "x", status=2, env=self.env).stderr)

    def test_an_index_that_is_damaged(self):
        self.an_index_that_is_damaged()

    def test_an_index_of_another_archive(self):
        """Members of one archive, footer, list and blocks of another: nothing is restored that is not what it says."""
        with open(self.archive(), "rb") as file:
            theirs = file.read()
        for name in ("a", "b"):
            folder = self.path("other", name)
            os.makedirs(folder)
            for number in range(300):
                with open(f"{folder}/{number}", "wb") as file:
                    file.write(b"%s %d" % (name.encode(), number))
        stores = {}
        for name in ("a", "b"):
            source = self.path("root", "x")
            shutil.rmtree(self.path("root"), True)
            shutil.copytree(self.path("other", name), source)
            for path in [*glob.glob(source + "/*"), source]:
                os.utime(path, (1_600_000_000, 1_600_000_000))
            self.lunark("backup", "files", source, "--to", self.path("s" + name), "--name", "t", "--no-latest",
                        "--compress", "none")
            (archive,) = glob.glob(self.path("s" + name, "t", "t-2*.gz"))
            with open(archive, "rb") as file:
                stores[name] = bytearray(file.read())
        self.assertEqual(len(stores["a"]), len(stores["b"]))
        _, _, blocks = self.index_parts(bytes(stores["b"]))
        mixed = stores["a"][:blocks[0]] + stores["b"][blocks[0]:]
        self.assertNotEqual(bytes(theirs), bytes(mixed))
        source = self.write("mixed.tar.gz", bytes(mixed))
        self.log = self.restore(self.path("root", "x", "7"), source=source).stderr
        self.assertRegex(self.log, "does not fit its data: .*; reading the archive whole")
        with open(self.into + self.path("root", "x", "7"), "rb") as file:
            self.assertEqual(b"a 7", file.read())

    def test_data_that_is_damaged(self):
        with open(self.archive(), "rb") as file:
            data = bytearray(file.read())
        for member in read_index.read(bytes(data))[2]:
            data[member[0] + member[1] // 2] ^= 1
        failed = self.restore(f"{self.base}/big.bin", source=self.write("x.tar.gz", bytes(data)), status=4)
        self.assertIn("is damaged", failed.stderr)
        self.assertEqual([], glob.glob(f"{self.into}/**/big.bin", recursive=True))

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
            self.assertIn("tree/big.bin", [record["path"] for record in self.records(source=source)])


class PathsOnS3(Archive):
    """The same on a real S3 server, and what it is asked."""

    def setUp(self):
        Case.setUp(self)
        self.server = self.s3()
        self.tree = make_tree(self.path("tree"))
        os.chmod(self.path("tree", "d1"), 0o710)
        os.chmod(self.path("tree", "d1", "e1"), 0o700)
        self.base = self.tree.lstrip("/")
        self.env, self.seconds = self.server.env(), False
        self.store = self.server.url("bucket", "store")
        self.backup()

    def archive(self):
        (key,) = (key for key in self.server.objects("bucket") if "/t-2" in key and key.endswith(".tar.gz"))
        if self.server.data:
            return os.path.join(self.server.data, "bucket", key)
        with self.server.read("bucket", key) as file:
            return self.write("copy.tar.gz", file.read())

    def test_the_same_as_locally(self):
        self.one_file_with_the_directories_above_it()
        self.hard_link_without_its_target()
        self.assertEqual(len(describe(self.tree)) + 1, len(self.records()))

    def test_only_parts_of_the_object_are_read(self):
        url = self.between(self.server, "bucket", [], prefix="store")
        self.restored(f"{self.base}/d1/e1/file 1.txt", source=url)
        with open(self.path("log"), encoding="utf-8") as log:
            gets = [line for line in map(json.loads, log) if line["method"] == "GET" and ".tar.gz" in line["path"]]
        self.assertLessEqual(len(gets), 4, gets)

    def test_a_read_that_breaks_off(self):
        url = self.between(self.server, "bucket", [
            {"match": {"method": "GET", "path": "tar.gz"}, "times": 3, "forward": True, "close_after": 1000},
        ], prefix="store")
        self.assertIn("big.bin", self.restored(f"{self.base}/big.bin", source=url))
        self.assertNotIn("whole", self.log)


if __name__ == "__main__":
    main()
