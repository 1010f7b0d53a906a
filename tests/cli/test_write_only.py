# SPDX-License-Identifier: MIT
"""Credentials that may do less than everything, one right after the other taken away by a server in front of the store:
what is stored all the same, what can't be checked or moved, and that both are said."""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import Case, main  # noqa: E402

REFUSED = {"status": 403, "times": 0, "headers": {"content-type": "application/xml"},
           "body": "<Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>"}
READ = dict(REFUSED, match={"method": "GET|HEAD", "path": "^/[^?/]+/[^?]"})
COPY = dict(REFUSED, match={"method": "PUT", "header": {"x-amz-copy-source": "."}})
LIST = dict(REFUSED, match={"method": "GET", "path": "^/[^/?]+/?[?]"})
DELETE = dict(REFUSED, match={"method": "DELETE"})
UNCHECKED = "is not checked: these credentials can't read it, the upload's own answer counts"


class Rights(Case):
    def setUp(self):
        super().setUp()
        self.server = self.s3()
        self.write("data/file", os.urandom(100000))
        self.write("mine/policies/dump.lua", """
return require "lunark.policy" {
  api = 1, name = "dump", summary = "a program", needs = { exec = { "sh" } },
  options = { command = { "string", required = true } },
  backup = function(job)
    job:save("n", { program = { "sh", "-c", job.options.command }, suffix = ".bin", expect_size = 60 << 20 })
  end,
}
""")

    def url(self, *steps):
        """The store through a server that refuses."""
        return self.between(self.server, "bucket", steps)

    def backup(self, url, *more, status=0):
        done = self.lunark("backup", "files", self.path("data"), "--name", "n", "--to", url, "--json", *more, status=status,
                           env=self.server.env())
        said = json.loads(done.stdout)
        return done.stderr, said, said["items"][0]["stores"][0] if said.get("items") else None

    def dump(self, command, url, status):
        return self.lunark("backup", "dump", "--command", command, "--scripts", self.path("mine"), "--to", url, status=status,
                           env=self.server.env())

    def kinds(self):
        return sorted(key.split("Z", 1)[-1] if "latest" not in key else "latest" for key in self.server.objects("bucket"))

    def manifest(self):
        (key,) = [key for key in self.server.objects("bucket") if key.endswith(".manifest.json")]
        with self.server.read("bucket", key) as file:
            return json.load(file)

    def test_everything(self):
        said, _, store = self.backup(self.server.url("bucket", "p"))
        self.assertNotIn(UNCHECKED, said)
        self.assertEqual((True, True, True), (store["stored"], store["checked"], store["latest"]))
        self.assertIs(True, self.manifest()["checked"])

    def test_put_alone(self):
        url = self.url(READ, COPY, LIST, DELETE)
        said, outcome, store = self.backup(url, status=1)
        self.assertEqual([".manifest.json", ".tar.gz"], self.kinds())
        self.assertIn(UNCHECKED, said)
        self.assertRegex(said, r"stored as n/n-\S+\.tar\.gz, latest not moved: ")
        self.assertIn("hint: `latest` is a copy, which needs the right to read: permit that, or give --no-latest", said)
        self.assertEqual((True, False, False), (store["stored"], store["checked"], store["latest"]))
        self.assertEqual(1, outcome["status"])
        self.assertIs(False, self.manifest()["checked"])
        for args in (("list", url), ("restore", "--from", url, "--into", self.path("into"))):
            failed = self.lunark(*args, status=3, env=self.server.env())
            self.assertIn("AccessDenied", failed.stderr)
        # With rights again, what was stored is a backup like any other.
        whole = self.server.url("bucket", "p")
        self.assertIn(" ok ", self.lunark("list", whole, env=self.server.env()).stdout)
        self.lunark("restore", "--from", whole, "--into", self.path("into"), env=self.server.env())

    def test_put_alone_without_latest(self):
        said, _, store = self.backup(self.url(READ, COPY, LIST, DELETE), "--no-latest")
        self.assertEqual([".manifest.json", ".tar.gz"], self.kinds())
        self.assertIn(UNCHECKED, said)
        self.assertEqual((True, False), (store["stored"], store["checked"]))

    def test_put_alone_in_parts(self):
        url = self.url(READ, COPY, LIST, DELETE)
        failed = self.dump("head -c 30000000 /dev/urandom", url, 1)
        self.assertIn("latest not moved", failed.stderr)
        self.assertEqual([".bin.gz", ".manifest.json"], self.kinds())
        self.assertEqual([], self.server.uploads("bucket"))

    def test_no_list(self):
        said, _, store = self.backup(self.url(LIST))
        self.assertEqual([".manifest.json", ".tar.gz", "latest"], self.kinds())
        self.assertEqual((True, True), (store["checked"], store["latest"]))
        self.assertNotIn(UNCHECKED, said)

    def test_no_delete(self):
        url = self.url(DELETE)
        self.backup(url)
        # An upload that failed can't be removed either, and that is said.
        failed = self.dump("head -c 30000000 /dev/urandom; exit 3", url, 1)
        self.assertIn("the unfinished upload of", failed.stderr)
        self.assertIn("could not be removed", failed.stderr)
        self.assertFalse([key for key in self.server.objects("bucket") if ".bin" in key])

    def test_no_copy(self):
        said, _, store = self.backup(self.url(COPY), status=1)
        self.assertEqual([".manifest.json", ".tar.gz"], self.kinds())
        self.assertIn("latest not moved", said)
        self.assertEqual((True, False), (store["checked"], store["latest"]))

    def test_no_put(self):
        refused = dict(REFUSED, match={"method": "PUT|POST"})
        said, outcome, _ = self.backup(self.url(refused), status=3)
        self.assertIn("AccessDenied", said)
        self.assertEqual([], self.kinds())
        self.assertEqual("auth", outcome["failures"][0]["kind"])

    def test_no_manifest(self):
        refused = dict(REFUSED, match={"method": "PUT", "path": "manifest"})
        said, _, store = self.backup(self.url(refused), status=3)
        self.assertEqual([".tar.gz"], self.kinds())
        self.assertFalse(store["stored"])
        self.assertIn("AccessDenied", said)
        self.assertEqual("no backups\n", self.lunark("list", self.server.url("bucket", "p"), env=self.server.env()).stdout)


if __name__ == "__main__":
    main()
