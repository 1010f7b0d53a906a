# SPDX-License-Identifier: MIT
"""Backups to a real S3 server through a network that loses answers, resets connections and refuses for a while; and
restores from one that cuts bodies short."""
import json
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import Case, main  # noqa: E402

PART = r"partNumber=\d+"


class Http(Case):
    def setUp(self):
        super().setUp()
        self.server = self.s3()
        self.bucket = self.server.bucket("lunark-test")
        self.count = 0

    def faults(self, *steps):
        """A store's URL with these faults on the way to the server, and the path of the log of requests."""
        self.count += 1
        log = f"requests{self.count}"
        return self.between(self.server, self.bucket, steps, log=log), self.path(log)

    def source(self, mib=40):
        path = self.path("src", "data")
        os.makedirs(self.path("src"), exist_ok=True)
        with open(path, "wb") as file:
            file.write(random.Random(1).randbytes(mib << 20))
        return self.path("src")

    def backup(self, url, **more):
        return self.lunark("backup", "files", self.source(), "--name", "n", "--to", url, "--progress", "none",
                           env=self.server.env(), **more)

    def assert_restores(self, url=None):
        into = self.path(f"out{self.count}")
        result = self.lunark("restore", "--from", url or self.server.url(self.bucket, "p"), "--into", into,
                             env=self.server.env())
        found = [os.path.join(f, n) for f, _, names in os.walk(into) for n in names if n == "data"]
        self.assertEqual(1, len(found), result.stderr)
        with open(found[0], "rb") as got, open(self.path("src", "data"), "rb") as wanted:
            self.assertTrue(got.read() == wanted.read(), "the restored bytes differ")

    def logged(self, log, **wanted):
        with open(log, encoding="utf-8") as lines:
            return [e for e in map(json.loads, lines) if all(e[k] == v for k, v in wanted.items())]

    def test_parts_are_sent_again(self):
        url, log = self.faults(
            {"match": {"method": "PUT", "path": PART}, "forward": True, "drop": True},
            {"match": {"method": "PUT", "path": PART}, "read": 100000, "drop": "reset"},
            {"match": {"method": "PUT", "path": PART}, "status": 503, "headers": {"Retry-After": "0"},
             "body": "<Error><Code>SlowDown</Code></Error>"},
            {"match": {"method": "PUT", "path": PART}, "status": 500, "body": "not even XML"})
        self.backup(url)
        for step in range(4):
            self.assertEqual(1, len(self.logged(log, step=step)), f"step {step}")
        self.assertEqual([], self.server.uploads(self.bucket))
        self.assert_restores()

    def test_lost_answers_at_the_end(self):
        """The upload was completed, the manifest and `latest` were written: only nobody was told."""
        url, log = self.faults(
            {"match": {"method": "POST", "path": r"uploadId="}, "forward": True, "drop": True},
            {"match": {"method": "PUT", "path": r"manifest\.json"}, "forward": True, "drop": True},
            {"match": {"method": "PUT", "path": "latest"}, "forward": True, "drop": True},
            {"match": {"method": "HEAD"}, "drop": True})
        self.backup(url)
        self.assertEqual(1, len(self.logged(log, step=0)))
        self.assertEqual([], self.server.uploads(self.bucket))
        self.assertEqual(3, len(self.server.objects(self.bucket)), self.server.objects(self.bucket))
        self.assert_restores()

    def test_refused_for_good(self):
        """A part that is refused with reason fails the backup, ends the upload and leaves nothing to be seen."""
        url, _ = self.faults(
            {"match": {"method": "PUT", "path": PART}, "times": 0, "status": 403,
             "body": "<Error><Code>AccessDenied</Code><Message>not yours</Message></Error>"})
        result = self.backup(url, status=None)
        self.assertNotEqual(0, result.returncode)
        self.assertIn("not yours", result.stderr)
        self.assertEqual([], self.server.uploads(self.bucket))
        self.assertEqual([], self.server.objects(self.bucket))

    def test_restore_over_a_broken_body(self):
        """A body that is cut short is never taken for the whole archive; it goes on where it broke."""
        self.backup(self.server.url(self.bucket, "p"))
        for fault in ({"reset_after": 9000000}, {"close_after": 9000000}):
            url, log = self.faults(
                {"match": {"method": "GET", "path": r"\.tar\.gz"}, "forward": True, **fault})
            into = self.path("cut-" + "".join(fault))
            result = self.lunark("restore", "--from", url, "--into", into, env=self.server.env())
            self.assertEqual(1, len(self.logged(log, step=0)))
            self.assertIn("1 files, 40.0 MiB", result.stderr)
            self.assert_restores(url)


if __name__ == "__main__":
    main()
