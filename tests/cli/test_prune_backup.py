# SPDX-License-Identifier: MIT
"""lunark backup --keep-...: the items of the run are thinned out once they are stored, and only then."""
import datetime
import json
import os
import shutil
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import stored  # noqa: E402
from harness import LUNARK, Case, environment, main  # noqa: E402
from neo4j_case import Neo4jCase  # noqa: E402

START = datetime.datetime(2020, 1, 1, 2)
REFUSED = {"status": 403, "times": 0, "headers": {"content-type": "application/xml"},
           "body": "<Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>"}
POLICY = """
return require "lunark.policy" {
  api = 1, name = "two", summary = "two items", needs = { exec = { "sh" } },
  options = { broken = { "boolean" } },
  backup = function(job)
    job:save("a", { program = { "sh", "-c", "echo a" }, suffix = ".dump" })
    job:save("b", { program = { "sh", "-c", job.options.broken and "echo b; exit 3" or "echo b" }, suffix = ".dump" })
  end,
}
"""


class Kept(Case):
    def setUp(self):
        super().setUp()
        self.base = self.path("store")
        self.write("tree/file", b"content")
        self.write("mine/policies/two.lua", POLICY)

    def old(self, item, count=3, base=None, **more):
        for number in range(count):
            stored.backup(base or self.base, item, START + datetime.timedelta(days=number), **more)

    def two(self, *args, to=None, **more):
        return self.lunark("backup", "two", "--scripts", self.path("mine"), "--to", to or self.base, *args, **more)

    def count(self, item):
        return len([key for key in stored.keys(self.base) if key.startswith(item + "/") and key.endswith(".dump.gz")
                    and "latest" not in key])

    def test_items_of_the_run(self):
        for item in ("a", "b", "other"):
            self.old(item, report=True)
        self.old("a", suffix=".tar.gz", style="compat")
        done = self.two("--keep-last", "2", "--json")
        self.assertEqual([2, 2, 3], [self.count(item) for item in ("a", "b", "other")])
        said = json.loads(done.stdout)
        self.assertEqual([[2], [2]], [[store["pruned"] for store in item["stores"]] for item in said["items"]])
        self.assertIn("2 older backups deleted", done.stderr)
        self.assertEqual(3, len([key for key in stored.keys(self.base) if key.startswith("a/") and ":" in key
                                 and key.endswith(".tar.gz")]), "another suffix is another series")
        self.assertEqual(1, len([key for key in stored.keys(self.base) if key.startswith("a/") and "report" in key]))

    def test_every_night(self):
        for _ in range(4):
            self.two("--keep-last", "1", "--name-format", "compat")
        self.assertEqual([1, 1], [self.count("a"), self.count("b")])
        self.assertEqual(3, len([key for key in stored.keys(self.base) if key.startswith("a/")]))

    def test_a_failed_item_keeps_all(self):
        self.old("a")
        self.old("b")
        self.two("--keep-last", "1", "--broken", status=1)
        self.assertEqual([1, 3], [self.count("a"), self.count("b")])

    @unittest.skipIf(os.geteuid() == 0 and not shutil.which("setpriv"), "root reads everything, setpriv is not here")
    def test_something_could_not_be_read(self):
        self.write("tree/secret", b"x", 0)
        self.old("n", suffix=".tar.gz")
        os.makedirs(self.base, exist_ok=True)
        os.chmod(self.base, 0o777)
        os.chmod(self.path("store/n"), 0o777)
        other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
        child = subprocess.run([*other, LUNARK, "backup", "files", self.path("tree"), "--name", "n", "--to", self.base,
                                "--keep-last", "1"], check=False, env=environment(), stderr=subprocess.PIPE,
                               stdin=subprocess.DEVNULL)
        self.assertEqual(5, child.returncode, child.stderr)
        self.assertIn(b"older backups are not thinned out", child.stderr)
        self.assertEqual(4, len([k for k in stored.keys(self.base) if k.endswith("Z.tar.gz")]))

    def test_usage_before_anything_is_touched(self):
        for args in (("--keep-last", "0"), ("--keep-daily", "many"), ("--keep-within", "1y")):
            self.two(*args, status=2)
            self.assertFalse(os.path.exists(self.base))

    def test_no_right_to_delete(self):
        """The backup is stored, what could not be deleted is said, and the status is 1."""
        server = self.s3()
        url = self.between(server, "bucket", [dict(REFUSED, match={"method": "POST", "path": "[?&]delete"}),
                                              dict(REFUSED, match={"method": "DELETE"})])
        self.two(to=url, env=server.env())
        done = self.two("--keep-last", "1", "--json", to=url, env=server.env(), status=1)
        self.assertRegex(done.stderr, r"stored as a/a-\S+\.dump\.gz, an older backup is not deleted: p/a/a-\S+: .*AccessDenied")
        said = json.loads(done.stdout)
        self.assertEqual([[True, 0]] * 2, [[item["stores"][0]["stored"], item["stores"][0]["pruned"]] for item in said["items"]])
        self.assertEqual(2, len(said["failures"]))
        listed = json.loads(self.lunark("list", url, "--json", env=server.env()).stdout)["backups"]
        self.assertEqual(["ok"] * 4, [found["state"] for found in listed])

    def test_in_a_script(self):
        self.old("n")
        script = self.write("job.lua", """
needs { exec = { "sh" } }
local backup = require "lunark.backup"
local job <close> = assert(backup.open { to = { arg[1] }, keep = { last = 1, daily = 2 } })
job:save("n", { program = { "sh", "-c", "echo x" }, suffix = ".dump" })
assert(job:finish())
local ok, err = pcall(backup.open, { to = { arg[1] }, keep = { hourly = 1 } })
assert(not ok and err.kind == "usage" and err.message:find("hourly"))
""")
        self.lunark("run", "--allow", "declared", script, "file://" + self.base)
        self.assertEqual(2, self.count("n"))


class Databases(Neo4jCase):
    def test_each_database_with_its_reports(self):
        for database in ("neo4j", "system", "other"):
            for number in range(3):
                stored.backup(self.store, database, START + datetime.timedelta(days=number), style="compat", suffix=".tar.gz",
                              report=True)
        self.backup("--keep-last", "2")
        kinds = [key.split("-2", 1)[0] + key[key.rindex(":") + 3:] for key in stored.keys(self.store) if "latest" not in key]
        self.assertEqual(sorted([f"{database}/{database}{end}" for database, count in (("neo4j", 2), ("system", 2), ("other", 3))
                                 for end in (".manifest.json", ".report.tar.gz", ".tar.gz") for _ in range(count)]), sorted(kinds))


if __name__ == "__main__":
    main()
