#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The command against an S3 store that fails: exit status, what is said, and what the bucket holds afterwards; that
earlier backups and `latest` stay as they were."""
import os
import sys
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "support"))

import harness  # noqa: E402

PUT, DATA = {"method": "PUT"}, {"method": "PUT", "path": r"Z\.tar\.gz"}
COPY = {"method": "PUT", "path": "latest"}


def refuse(status, code, **match):
    return {"status": status, "match": match, "times": 0, "headers": {"content-type": "application/xml"},
            "body": f"<Error><Code>{code}</Code><Message>The store's words.</Message></Error>"}


class Exit(harness.Case):
    def setUp(self):
        super().setUp()
        self.server = self.s3()
        if not self.server.data:
            raise unittest.SkipTest("versitygw is not here")
        self.bucket = self.server.bucket("bucket")
        self.write("tree/file", b"content")
        self.lunark("backup", "files", self.path("tree"), "--name", "n", "--to", self.server.url(self.bucket),
                    env=self.server.env())
        self.before = self.state()
        self.assertEqual(3, len(self.before))
        time.sleep(1)  # a key of its own

    def state(self):
        self.assertEqual([], self.server.uploads(self.bucket))
        found = {}
        for key in self.server.objects(self.bucket):
            with self.server.read(self.bucket, key) as file:
                found[key] = file.read()
        return found

    def through(self, *steps):
        return self.between(self.server, self.bucket, steps, prefix="")

    def backup(self, steps, status, *more, env=None):
        return self.lunark("backup", "files", self.path("tree"), "--name", "n", "--to", self.through(*steps), *more,
                           status=status, env={**self.server.env(), **(env or {})})

    def restore(self, steps, status, into="into", *more):
        return self.lunark("restore", "--from", self.through(*steps), "--item", "n", "--into", self.path(into), *more,
                           status=status, env=self.server.env())

    def big(self):
        with open(self.write("tree/noise"), "wb") as file:
            file.write(os.urandom(20 << 20))

    # --- nothing is stored ---

    def test_refused(self):
        for status, code, match in ((403, "AccessDenied", DATA), (403, "InvalidAccessKeyId", {}), (400, "ExpiredToken", PUT),
                                    (403, "SignatureDoesNotMatch", {}), (404, "NoSuchBucket", {})):
            with self.subTest(code):
                failed = self.backup([refuse(status, code, **match)], 3)
                self.assertIn("hint:", failed.stderr)
                self.assertEqual(self.before, self.state())

    def test_refused_in_mid_upload(self):
        self.big()
        for match in ({"path": "uploads"}, {"path": "partNumber=2"}, {"method": "POST", "path": "uploadId="}):
            with self.subTest(str(match)):
                self.backup([refuse(403, "AccessDenied", **match)], 3)
                self.assertEqual(self.before, self.state())

    def test_full(self):
        failed = self.backup([refuse(507, "XMinioStorageFull", **DATA)], 1)
        self.assertIn("the store is full", failed.stderr)
        self.assertEqual(self.before, self.state())

    def test_nobody_there(self):
        url = self.server.url(self.bucket).replace(self.server.endpoint, "http://127.0.0.1:1")
        failed = self.lunark("backup", "files", self.path("tree"), "--name", "n", "--to", url, status=3,
                             env=self.server.env())
        self.assertIn("127.0.0.1", failed.stderr)

    def test_throttled_for_ever(self):
        """The look at the store before the source is read ends after 20 s."""
        failed = self.backup([refuse(503, "SlowDown")], 3)
        self.assertRegex(failed.stderr, r"SlowDown.*gave up after \d+ attempts")
        self.assertEqual(self.before, self.state())

    # --- something is, and is no backup ---

    def test_size_that_is_another(self):
        head = {"match": {"method": "HEAD", "path": r"Z\.tar\.gz"}, "times": 0, "status": 200, "length": 5,
                "headers": {"etag": '"x"'}}
        # The first look is for whether the key is free.
        free = dict(head, status=404, length=0, times=1)
        failed = self.backup([free, head], None)
        self.assertIn(failed.returncode, (1, 4))
        self.assertIn("has bytes 5 in the store", failed.stderr)
        after = self.state()
        self.assertEqual(1, len(set(after) - set(self.before)), "an object without manifest")
        self.assertEqual(self.before, {key: after[key] for key in self.before})
        self.assertEqual(1, self.lunark("list", self.server.url(self.bucket), env=self.server.env()).stdout.count(" ok "))

    def test_manifest_is_refused(self):
        self.backup([refuse(403, "AccessDenied", method="PUT", path="manifest")], None)
        after = self.state()
        self.assertEqual(self.before, {key: after[key] for key in self.before})
        self.assertEqual(1, self.lunark("list", self.server.url(self.bucket), env=self.server.env()).stdout.count(" ok "))

    def test_latest_is_refused(self):
        failed = self.backup([refuse(403, "AccessDenied", **COPY)], 1)
        self.assertRegex(failed.stderr, r"stored as n/n-\S+Z\.tar\.gz, latest not moved")
        after = self.state()
        self.assertEqual(self.before, {key: after[key] for key in self.before})
        self.assertEqual(2, len(set(after) - set(self.before)))

    # --- all is well in the end ---

    def test_trouble_that_passes(self):
        self.big()
        steps = [dict(refuse(503, "SlowDown", **match), times=2) for match in (
            {"path": "uploads"}, {"path": "partNumber=2"}, {"method": "POST", "path": "uploadId="},
            {"method": "PUT", "path": "manifest"}, COPY, {"method": "GET"})]
        self.backup(steps, 0)
        self.assertEqual(5, len(self.state()))
        self.restore([{"match": {"method": "GET", "path": r"tar\.gz"}, "status": 503}], 0)
        with open(self.path("tree/noise"), "rb") as ours, \
                open(self.path("into") + self.path("tree/noise"), "rb") as theirs:
            self.assertTrue(ours.read() == theirs.read())

    def test_one_of_two_stores(self):
        failed = self.backup([refuse(403, "AccessDenied", **DATA)], 1, "--to", self.path("store"))
        self.assertIn("AccessDenied", failed.stderr)
        self.assertEqual(self.before, self.state())
        self.assertIn(" ok ", self.lunark("list", self.path("store")).stdout)

    # --- reading ---

    def test_restore_of_what_ends_early(self):
        get = {"match": {"method": "GET", "path": r"tar\.gz"}, "times": 0, "forward": True}
        for number, cut in enumerate(({"close_after": 100}, {"reset_after": 100})):
            failed = self.restore([dict(get, **cut)], 124, f"into{number}", "--timeout", "10s")
            self.assertIn("remaining to read" if number == 0 else "again in", failed.stderr)

    def test_restore_of_other_bytes(self):
        key = [key for key in self.before if key.endswith("Z.tar.gz")][0]
        body = bytearray(self.before[key])
        body[len(body) // 2] ^= 1
        with open(os.path.join(self.server.data, self.bucket, key), "r+b") as file:
            file.write(body)
        self.restore([], 4)

    def test_list_that_is_refused(self):
        failed = self.lunark("list", self.through(refuse(403, "AccessDenied", method="GET")), status=3,
                             env=self.server.env())
        self.assertIn("hint: the policy of this key or of the bucket does not allow it", failed.stderr)


if __name__ == "__main__":
    harness.main()
