# SPDX-License-Identifier: MIT
"""What goes over the line to an S3 server, as a log between shows it; and that a program which fails leaves nothing, in
a directory as in S3."""
import glob
import gzip
import hashlib
import json
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import Case, main  # noqa: E402

POLICY = """
return require "lunark.policy" {
  api = 1, name = "dump", summary = "what a program prints", needs = { exec = { "sh" } },
  options = { command = { "string", required = true, help = "for sh" } },
  backup = function(job)
    job:save("dump", { program = { "sh", "-c", job.options.command }, suffix = ".bin" })
  end,
}
"""


class Dumps(Case):
    def setUp(self):
        super().setUp()
        self.write("mine/policies/dump.lua", POLICY)

    def dump(self, command, url, **more):
        return self.lunark("backup", "dump", "--scripts", self.path("mine"), "--command", command, "--to", url, **more)


class OnTheLine(Dumps):
    def setUp(self):
        super().setUp()
        self.server = self.s3()
        self.bucket = self.server.bucket("bucket")

    def logging(self, *steps):
        """The store's URL through a server that writes a log."""
        return self.between(self.server, self.bucket, steps)

    def logged(self):
        with open(self.path("log"), encoding="utf-8") as lines:
            return [dict(entry, headers={k.lower(): v for k, v in entry["headers"]}) for entry in map(json.loads, lines)]

    def test_a_stream_of_unknown_length_in_parallel_parts_and_latest_by_copy(self):
        url = self.logging({"match": {"method": "PUT", "path": "partNumber="}, "times": 0, "delay": 0.5, "forward": True})
        kept = self.path("kept")
        self.dump(f"head -c 60000000 /dev/urandom | tee '{kept}'", url, env=self.server.env())
        log = self.logged()
        parts = [e for e in log if e["method"] == "PUT" and "partNumber=" in e["path"]]
        begun = [e for e in log if e["method"] == "POST" and e["path"].endswith("?uploads=") or e["path"].endswith("?uploads")]
        copies = [e for e in log if "x-amz-copy-source" in e["headers"]]
        self.assertEqual(1, len(begun), [e["path"] for e in log])
        self.assertGreaterEqual(len(parts), 4)
        self.assertGreaterEqual(len({e["connection"] for e in parts}), 2, "the parts went one after the other")
        (key,) = [k for k in self.server.objects(self.bucket) if k.endswith(".bin.gz") and "latest" not in k]
        with self.server.read(self.bucket, key) as file:
            stored = file.read()
        with open(kept, "rb") as file:
            self.assertEqual(hashlib.sha256(file.read()).digest(), hashlib.sha256(gzip.decompress(stored)).digest())
        self.assertEqual(len(stored), sum(e["bytes"] for e in parts), "each byte once")
        (copy,) = copies
        self.assertIn("dump-latest.bin.gz", copy["path"])
        self.assertEqual(0, copy["bytes"])
        with self.server.read(self.bucket, "p/dump/dump-latest.bin.gz") as file:
            self.assertTrue(file.read() == stored)
        order = [i for i, e in enumerate(log) if e in parts or "manifest" in e["path"] and e["method"] == "PUT" or e in copies]
        last = [log[i]["path"] for i in order[-2:]]
        self.assertIn("manifest.json", last[0])
        self.assertIn("latest", last[1])

    def test_parts_under_way_are_answered_before_the_upload_is_aborted(self):
        """What a server stores of a part after the abort stays there."""
        url = self.logging({"match": {"method": "PUT", "path": "partNumber="}, "times": 0, "delay": 0.5, "forward": True})
        self.dump("head -c 40000000 /dev/urandom; exit 3", url, status=1, env=self.server.env())
        log = self.logged()  # in the order in which they were answered
        self.assertEqual(("DELETE", True), (log[-1]["method"], "uploadId=" in log[-1]["path"]))
        self.assertGreaterEqual(len([e for e in log if "partNumber=" in e["path"]]), 2)
        self.assertEqual([], self.server.uploads(self.bucket))

    def test_an_upload_that_is_just_beginning_is_aborted_too(self):
        url = self.logging({"match": {"method": "POST", "path": "uploads"}, "times": 0, "delay": 2, "forward": True})
        child = self.start("backup", "dump", "--scripts", self.path("mine"), "--to", url, "--command",
                           "head -c 40000000 /dev/urandom; sleep 60", env=self.server.env())
        time.sleep(1.2)
        child.terminate()
        self.assertEqual(143, child.wait(30))
        self.assertIn("DELETE", [e["method"] for e in self.logged()])
        self.assertEqual([], self.server.uploads(self.bucket))

    def test_requests_are_signed_for_path_style_region_and_endpoint(self):
        self.dump("echo hello", self.logging(), env=self.server.env())
        for entry in self.logged():
            self.assertTrue(entry["path"].startswith("/bucket"), entry["path"])
            authorization = entry["headers"]["authorization"]
            self.assertRegex(authorization, rf"^AWS4-HMAC-SHA256 Credential={self.server.access}/\d{{8}}/"
                             rf"{self.server.region}/s3/aws4_request, ?SignedHeaders=[a-z0-9;-]*host[a-z0-9;-]*, ?"
                             r"Signature=[0-9a-f]{64}$")
            self.assertNotIn(self.server.secret, json.dumps(entry))

    def test_region_and_endpoint_from_the_environment(self):
        env = {**self.server.env(), "AWS_ENDPOINT_URL": self.server.endpoint, "AWS_REGION": self.server.region}
        self.dump("echo hello", "s3://bucket/p", env=env)
        self.assertIn("p/dump/dump-latest.bin.gz", self.server.objects(self.bucket))
        # Of another region the server says its own, and it is asked once more.
        self.assertIn(" ok ", self.lunark("list", "s3://bucket/p?region=eu-central-9", env=env).stdout)


class Sources(Dumps):
    FAILURES = (("echo data; exit 3", r"'sh' exited with code 3"),
                ("echo data; echo no such table >&2; exit 1", r"no such table"),
                ("echo data; kill -9 $$", r"'sh' was (killed|ended) by (signal )?(SIG)?KILL|signal (9|KILL|SIGKILL)"),
                (":", r"printed nothing"),
                ("head -c 40000000 /dev/urandom; exit 3", r"'sh' exited with code 3"),
                ("head -c 40000000 /dev/urandom; kill -9 $$", r"KILL|signal 9"))

    def leaves_nothing(self, url, env, objects):
        self.dump("echo first", url, env=env)
        before = objects()
        self.assertEqual(3, len([key for key in before if not os.path.basename(key).startswith(".")]), before)
        for command, message in self.FAILURES:
            failed = self.dump(command, url, env=env, status=1)
            self.assertRegex(failed.stderr, message)
            self.assertEqual(before, objects(), command)
        self.lunark("restore", "--from", url, "--at", "latest", "--into", self.path("into"), env=env)
        with open(self.path("into/dump.bin"), encoding="ascii") as file:
            self.assertEqual("first\n", file.read())

    def test_local(self):
        def objects():
            return {path: os.stat(path).st_ino for path in
                    glob.glob(self.path("store/**"), recursive=True, include_hidden=True) if os.path.isfile(path)}
        self.leaves_nothing(self.path("store"), {}, objects)

    def test_s3(self):
        server = self.s3()
        bucket = server.bucket("bucket")

        def objects():
            self.assertEqual([], server.uploads(bucket))
            found = {}
            for key in server.objects(bucket):
                with server.read(bucket, key) as file:
                    found[key] = hashlib.sha256(file.read()).hexdigest()
            return found
        self.leaves_nothing(server.url(bucket), server.env(), objects)


if __name__ == "__main__":
    main()
