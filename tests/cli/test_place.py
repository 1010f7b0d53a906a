# SPDX-License-Identifier: MIT
"""CLOUD_PROVIDER and BUCKET in place of a store's URL, with every verb and every cloud's server; the credentials file
of a job's container."""
import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import servers  # noqa: E402
from harness import Case, describe, main  # noqa: E402


class Places(Case):
    def setUp(self):
        super().setUp()
        self.tree = self.path("tree")
        self.write("tree/a file", b"content")

    def backup(self, *more, **how):
        return self.lunark("backup", "files", self.tree, "--name", "n", *more, **how)

    def every_verb(self, provider, bucket, env):
        """Backup, list, restore with no URL at all; what backup and list said."""
        env = dict(env, CLOUD_PROVIDER=provider, BUCKET=bucket)
        stored = self.backup(env=env)
        listed = self.lunark("list", env=env)
        self.assertIn("n/n-", listed.stdout)
        into = self.path("into " + bucket.replace("/", "_"))
        self.lunark("restore", "--into", into, env=env)
        self.assertEqual(describe(self.tree), describe(into + self.tree))
        return stored, listed

    def serve(self, kind):
        running = servers.Servers(self.path())
        self.addCleanup(running.stop)
        try:
            getattr(running, kind)(["bucket"])
        except servers.Unavailable as reason:
            raise unittest.SkipTest(str(reason)) from reason
        return running.env


class Environment(Places):
    def test_aws(self):
        server = self.s3()
        env = dict(server.env(), AWS_ENDPOINT_URL=server.endpoint, AWS_REGION=server.region)
        stored, _ = self.every_verb("aws", "s3://bucket/nightly/", env)
        self.assertIn("CLOUD_PROVIDER and BUCKET say: s3://bucket/nightly", stored.stderr)
        self.every_verb("aws", "bucket", env)
        self.every_verb("aws", "bucket/other/place", env)
        found = server.objects("bucket")
        for prefix in ("nightly/n/n-", "n/n-", "other/place/n/n-"):
            self.assertEqual(3, len([key for key in found if key.startswith(prefix)]), found)

    def test_gcp(self):
        env = self.serve("fakegcs")
        self.every_verb("gcp", "gs://bucket", env)
        self.every_verb("gcp", "bucket/dir", env)

    def test_azure(self):
        env = self.serve("azurite")
        self.every_verb("azure", "bucket", env)
        self.every_verb("azure", "bucket/path/to/dir", env)
        listed = self.lunark("list", "azure://bucket/path/to/dir", "--json", env=env)
        self.assertIn("\"n/n-", listed.stdout)
        self.every_verb("azure", "azure://bucket/other", env)

    def test_an_option_wins_and_the_log_says_so(self):
        env = {"CLOUD_PROVIDER": "aws", "BUCKET": "s3://never/asked"}
        stored = self.backup("--to", self.path("store"), env=env)
        self.assertIn("--to is given: CLOUD_PROVIDER and BUCKET of the environment don't count", stored.stderr)
        self.assertTrue(os.path.isdir(self.path("store", "n")))
        listed = self.lunark("list", self.path("store"), env=env)
        self.assertIn("URL is given", listed.stderr)
        restored = self.lunark("restore", "--from", self.path("store"), "--into", self.path("into"), env=env)
        self.assertIn("--from is given", restored.stderr)
        self.backup(env={**env, "LUNARK_TO": self.path("second")})
        self.assertTrue(os.path.isdir(self.path("second", "n")))

    def test_what_is_wrong_is_said_before_anything_is_touched(self):
        both = "and BUCKET is '{}': they don't fit together"
        for provider, bucket, message in (
                ("gcp", "s3://bucket/x", both.format("s3://bucket/x")), ("aws", "gs://bucket", both.format("gs://bucket")),
                ("azure", "s3://bucket", both.format("s3://bucket")), ("aws", "azure://c", both.format("azure://c")),
                ("aws", "file:///srv", both.format("file:///srv")), ("gcp", "https://x.blob.core.windows.net/c",
                                                                     both.format("https://x.blob.core.windows.net/c")),
                ("amazon", "bucket", "CLOUD_PROVIDER is 'amazon', one of aws, azure, gcp expected"),
                ("AWS", "bucket", "CLOUD_PROVIDER is 'AWS', one of aws, azure, gcp expected"),
                ("aws", None, "CLOUD_PROVIDER is set and BUCKET is not\nhint: set BUCKET, too"),
                (None, "bucket", "BUCKET is set and CLOUD_PROVIDER is not\nhint: set CLOUD_PROVIDER, too: aws, azure, gcp"),
                ("azure", "/srv/backups", "BUCKET is '/srv/backups', container/path expected"),
                ("aws", "s3://", "BUCKET: s3:// has no bucket or container"),
                ("aws", "bucket?secret_access_key=hush", "looks like a secret"),
                (None, None, "--to is missing\nhint: or set LUNARK_TO, or CLOUD_PROVIDER and BUCKET, in the environment")):
            env = {"CLOUD_PROVIDER": provider, "BUCKET": bucket, "TMPDIR": self.path("tmp")}
            with self.subTest(provider=provider, bucket=bucket):
                failed = self.backup(status=2, env=env)
                self.assertIn(message, failed.stderr)
                self.assertNotIn("hush", failed.stderr)
                self.assertFalse(os.path.exists(self.path("tmp")))
                if bucket or provider:
                    self.assertIn(message, self.lunark("list", status=2, env=env).stderr)
                    self.assertIn(message, self.lunark("restore", "--into", self.path("into"), status=2, env=env).stderr)
        self.assertIn("lunark list: URL is missing", self.lunark("list", status=2).stderr)
        self.assertIn("--from is missing", self.lunark("restore", "--into", self.path("into"), status=2).stderr)
        self.assertFalse(os.path.exists(self.path("into")))


if __name__ == "__main__":
    main()
