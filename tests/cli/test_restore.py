# SPDX-License-Identifier: MIT
"""lunark restore and lunark list: which backup is taken, and what is refused."""
import glob
import gzip
import json
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import Case, describe, main, make_tree  # noqa: E402


class Restore(Case):
    def setUp(self):
        super().setUp()
        self.store = self.path("store")
        self.into = self.path("into")

    def backup(self, content, name="data", *more):
        path = self.write(f"{name}/file", content)
        self.lunark("backup", "files", os.path.dirname(path), "--to", self.store, *more)
        return sorted(glob.glob(f"{self.store}/{name}/{name}-2*.tar.gz"))[-1]

    def restored(self, name="data"):
        with open(f"{self.into}{self.dir}/{name}/file", encoding="utf-8") as file:
            return file.read()

    def restore(self, *args, **more):
        subprocess.run(["rm", "-rf", self.into], check=True)
        return self.lunark("restore", "--from", self.store, "--into", self.into, *args, **more)

    def test_whole_tree(self):
        tree = make_tree(self.path("src"))
        self.lunark("backup", "files", tree, "--to", self.store)
        self.restore()
        self.assertEqual(describe(tree), describe(self.into + tree))

    def test_newest_a_time_and_latest(self):
        first = self.backup("first")
        self.backup("second")
        stamp = re.search(r"data-(\S+)\.tar\.gz", first).group(1)
        self.restore()
        self.assertEqual("second", self.restored())
        self.restore("--at", "latest")
        self.assertEqual("second", self.restored())
        rfc3339 = f"{stamp[:13]}:{stamp[13:15]}:{stamp[15:]}"
        for at in (stamp, rfc3339, rfc3339.replace("Z", "+00:00"), f"{rfc3339[:10]}-{rfc3339[11:-1]}"):
            self.restore("--at", at)
            self.assertEqual("first", self.restored(), at)
        failed = self.restore("--at", "2001-01-01T00:00:00Z", status=1)
        self.assertIn("no backup of 2001-01-01T000000Z", failed.stderr)

    def test_by_full_key(self):
        first = self.backup("first")
        self.backup("second")
        subprocess.run(["rm", "-rf", self.into], check=True)
        done = self.lunark("restore", "--from", first, "--into", self.into)
        self.assertEqual("first", self.restored())
        self.assertNotIn("warn", done.stderr)

    def test_by_full_key_is_compared_with_the_manifest_or_the_mark_of_latest(self):
        first = self.backup("first")
        second = self.backup("second")
        latest = self.store + "/data/data-latest.tar.gz"
        done = self.lunark("restore", "--json", "--from", latest, "--into", self.into)
        self.assertEqual(("data", "ok"), (json.loads(done.stdout)["item"], json.loads(done.stdout)["state"]))
        self.assertNotIn("warn", done.stderr)
        os.rename(second, first)
        subprocess.run(["rm", "-rf", self.into], check=True)
        failed = self.lunark("restore", "--from", first, "--into", self.into, status=4)
        self.assertIn(os.path.basename(first), failed.stderr)

    def test_several_items(self):
        self.backup("one", "one")
        self.backup("two", "two")
        failed = self.restore(status=2)
        self.assertIn("one, two", failed.stderr)
        self.assertIn("--item", failed.stderr)
        self.assertFalse(os.path.exists(self.into))
        self.restore("--item", "two")
        self.assertEqual("two", self.restored("two"))
        failed = self.restore("--item", "three", status=1)
        self.assertIn("there is no backup of 'three'", failed.stderr)

    def test_folder_that_is_not_empty(self):
        self.backup("new")
        self.write("into/mine", "mine")
        failed = self.lunark("restore", "--from", self.store, "--into", self.into, status=2)
        self.assertIn("is not empty", failed.stderr)
        self.assertIn("--overwrite", failed.stderr)
        self.lunark("restore", "--from", self.store, "--into", self.into, "--overwrite")
        self.assertEqual("new", self.restored())
        self.assertTrue(os.path.exists(self.into + "/mine"))

    def test_empty_store(self):
        os.makedirs(self.store)
        self.assertIn("there is no backup", self.restore(status=1).stderr)

    def test_damaged_archive(self):
        archive = self.backup("content" * 10000)
        size = os.path.getsize(archive)
        with open(archive, "r+b") as file:
            file.seek(size // 2)
            byte = file.read(1)
            file.seek(size // 2)
            file.write(bytes([byte[0] ^ 0x40]))
        failed = self.restore(status=4)
        self.assertIn("is damaged", failed.stderr)
        self.assertIn(os.path.basename(archive), failed.stderr)

    def test_cut_off_archive(self):
        archive = self.backup("content" * 10000)
        with open(archive, "r+b") as file:
            file.truncate(os.path.getsize(archive) - 100)
        self.assertIn("damaged", self.restore(status=4).stderr)

    def test_whole_archive_but_not_the_one_of_the_manifest(self):
        first = self.backup("first")
        with open(first, "rb") as file:
            data = file.read()
        second = self.backup("other content of another length")
        with open(second, "wb") as file:
            file.write(data)
        failed = self.restore(status=4)
        self.assertIn("is damaged", failed.stderr)

    def test_damaged_manifest(self):
        archive = self.backup("x")
        with open(archive.replace(".tar.gz", ".manifest.json"), "w", encoding="utf-8") as file:
            file.write("{}")
        self.assertIn("is no manifest", self.restore(status=4).stderr)

    def test_incomplete_is_not_restored_but_by_its_key(self):
        self.backup("first")
        second = self.backup("second")
        os.unlink(second.replace(".tar.gz", ".manifest.json"))
        self.restore()
        self.assertEqual("first", self.restored())
        listed = self.lunark("list", self.store).stdout
        self.assertNotIn(os.path.basename(second), listed)
        self.assertRegex(self.lunark("list", self.store, "--all").stdout, f"incomplete.*{os.path.basename(second)}")
        subprocess.run(["rm", "-rf", self.into], check=True)
        self.lunark("restore", "--from", second, "--into", self.into)
        self.assertEqual("second", self.restored())

    def test_archive_of_another_tool(self):
        os.makedirs(self.store + "/db")
        path = self.write("other/file", "by tar")
        archive = self.store + "/db/db-2020-06-16-12:32:57.tar.gz"
        subprocess.run(["tar", "--force-local", "-czf", archive, "-C", "/", path.lstrip("/")], check=True)
        self.assertRegex(self.lunark("list", self.store).stdout, r"db +2020-06-16T12:32:57Z .*unverified")
        self.restore()
        with open(self.into + path, encoding="utf-8") as file:
            self.assertEqual("by tar", file.read())

    def test_output_of_a_program(self):
        script = self.write("s.lua", """
needs { exec = { "echo" } }
local job <close> = assert(require("lunark.backup").open { to = { arg[1] } })
assert(job:save("app", { program = { "echo", "the dump" }, suffix = ".dump" }))
assert(job:finish())
""")
        self.lunark("run", "--allow", "declared", "--allow", "write=" + self.store, "--allow", "read=" + self.store, script,
                    self.store)
        (dump,) = glob.glob(self.store + "/app/app-2*.dump.gz")
        with gzip.open(dump) as file:
            self.assertEqual(b"the dump\n", file.read())
        self.restore()
        with open(self.into + "/app.dump", "rb") as file:
            self.assertEqual(b"the dump\n", file.read())
        with open(dump, "r+b") as file:
            file.truncate(os.path.getsize(dump) - 1)
        self.restore(status=4)
        self.assertEqual([], os.listdir(self.into))

    def test_list(self):
        self.backup("x", "a")
        self.backup("y", "b")
        listed = self.lunark("list", self.store).stdout.splitlines()
        self.assertEqual(["ITEM", "TIME", "SIZE", "STATE", "KEY"], listed[0].split())
        self.assertEqual(["a", "b"], [line.split()[0] for line in listed[1:]])
        self.assertTrue(all(" ok " in line for line in listed[1:]))
        found = json.loads(self.lunark("list", self.store, "--json", "--item", "b").stdout)["backups"]
        self.assertEqual(["b"], [one["item"] for one in found])
        self.assertEqual("ok", found[0]["state"])
        self.assertEqual(os.path.getsize(os.path.join(self.store, found[0]["key"])), found[0]["size"])

    def test_a_url_in_the_wrong_place(self):
        archive = self.backup("x")
        listed = self.lunark("list", archive, status=2)
        self.assertIn("names one archive, a store expected\nhint: --files shows", listed.stderr)
        self.lunark("list", "--files", archive)
        for word, said in (("disk", "there is no policy 'disk'"), (self.store, "is no name of a policy")):
            failed = self.lunark("restore", word, "--into", self.path("out"), status=2)
            self.assertRegex(failed.stderr, said + "\nhint: a store is named by --from: lunark restore --from URL")

    def test_list_of_a_store_that_is_not_there(self):
        self.assertEqual("no backups\n", self.lunark("list", self.make_empty()).stdout)
        failed = self.lunark("list", self.path("nowhere"), status=None)
        self.assertIn(failed.returncode, (1, 3), failed.stderr)
        self.assertIn(self.path("nowhere"), failed.stderr)

    def make_empty(self):
        os.makedirs(self.path("empty"))
        return self.path("empty")

    def test_restore_json(self):
        archive = self.backup("x")
        result = json.loads(self.restore("--json").stdout)
        self.assertEqual([0, "data", "ok", 1], [result[k] for k in ("status", "item", "state", "files")])
        self.assertEqual("data/" + os.path.basename(archive), result["key"])


if __name__ == "__main__":
    main()
