#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""S3 with credentials that may do only a part: the policies of docs/stores-s3.md for each verb, MinIO's sessions and
moto's users; policies that demand encryption; buckets that lock what is in them; buckets with versions."""
import json
import os
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request
import xml.etree.ElementTree as xml

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "support"))

import harness  # noqa: E402
import minio_server  # noqa: E402
import servers  # noqa: E402

OBJECTS, BUCKET = "arn:aws:s3:::bucket/*", "arn:aws:s3:::bucket"
LATEST = r"stored as \S+, latest not moved"


def allow(*actions, resource=OBJECTS, **more):
    return {"Effect": "Allow", "Action": [f"s3:{action}" for action in actions], "Resource": resource, **more}


def policy(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def documented():
    """verb -> policy, as docs/stores-s3.md prints them."""
    with open(os.path.join(ROOT, "docs", "stores-s3.md"), encoding="utf-8") as file:
        blocks = re.findall(r"```json\n(\{ \"Version\".*?)```", file.read(), re.S)
    found = {}
    for block in blocks:
        for statement in json.loads(block.replace("BUCKET", "bucket").replace("/PREFIX", ""))["Statement"]:
            found[statement["Sid"]] = {key: value for key, value in statement.items() if key != "Sid"}
    return found


class Case(harness.Case):
    def setUp(self):
        super().setUp()
        self.servers = servers.Servers(self.dir)
        self.addCleanup(self.servers.stop)
        self.write("tree/file", b"content")
        with open(self.write("tree/noise"), "wb") as file:
            file.write(os.urandom(12 << 20))

    def start_server(self, name, *args, **more):
        getattr(self.servers, name)(["bucket"], *args, **more)
        self.url = self.servers.env["AWS_ENDPOINT_URL"]
        self.root = {name: self.servers.env[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}

    def to(self, query=""):
        return f"s3://bucket/?endpoint={self.url}{query}"

    def backup(self, env, status=0, query="", *more):
        return self.lunark("backup", "files", self.path("tree"), "--name", "n", "--to", self.to(query), *more,
                           status=status, env=env)

    def signed(self, method, path, body=b"", **headers):
        keys = (self.root["AWS_ACCESS_KEY_ID"], self.root["AWS_SECRET_ACCESS_KEY"])
        return minio_server.signed(method, self.url + path, body, {k.replace("_", "-"): v for k, v in headers.items()}, keys)

    def keys(self):
        tree = xml.fromstring(self.signed("GET", "/bucket?list-type=2"))
        return sorted(e.text for e in tree.iter() if e.tag.endswith("}Key"))

    def versions(self):
        """key -> how many versions it has."""
        tree = xml.fromstring(self.signed("GET", "/bucket?versions="))
        found = {}
        for one in tree.iter():
            if one.tag.endswith("}Version"):
                (key,) = [e.text for e in one if e.tag.endswith("}Key")]
                found[key] = found.get(key, 0) + 1
            self.assertFalse(one.tag.endswith("}DeleteMarker"), "something was deleted")
        return found

    def latest(self):
        return len([key for key in self.keys() if "latest" in key])


class Minio(Case):
    def setUp(self):
        super().setUp()
        self.start_server("minio")

    def session(self, *statements):
        return minio_server.session(self.url, policy(*statements))

    def uploads(self):
        base = self.path("minio/.minio.sys/multipart")
        return [two for one in os.listdir(base) for two in os.listdir(os.path.join(base, one))] if os.path.isdir(base) else []

    def test_put_only(self):
        env = self.session(allow("PutObject", "AbortMultipartUpload"))
        stored = self.backup(env, 1)
        self.assertRegex(stored.stderr, LATEST)
        self.assertEqual(2, len(self.keys()))
        self.assertEqual(0, self.latest())
        time.sleep(1)
        self.backup(env, 0, "", "--no-latest")
        self.assertEqual(4, len(self.keys()))
        failed = self.lunark("list", self.to(), status=3, env=env)
        self.assertIn("policy", failed.stderr)
        self.assertIn(" ok ", self.lunark("list", self.to(), env=self.root).stdout)

    def test_documented_policies(self):
        """Each is enough for its verb, and what it leaves out is refused."""
        found = documented()
        self.backup(self.session(found["backup"]))
        self.assertEqual(1, self.latest())
        archive = [key for key in self.keys() if re.search(r"Z\.tar\.gz$", key)][0]
        self.lunark("list", self.to(), env=self.session(found["list"]))
        self.lunark("restore", "--from", self.to(), "--item", "n", "--into", self.path("into"),
                    env=self.session(found["list"], found["restore"]))
        self.lunark("restore", "--from", f"s3://bucket/{archive}?endpoint={self.url}", "--into", self.path("one"),
                    env=self.session(found["restore"]))
        readers = self.session(found["list"], found["restore"])
        self.assertRegex(self.lunark("verify", self.to(), env=readers).stdout, r"(?m)^ok .* index$")
        self.lunark("verify", f"s3://bucket/{archive}?endpoint={self.url}", env=self.session(found["restore"]))
        for statement in ("list", "restore"):
            failed = self.backup(self.session(found[statement]), 3)
            self.assertIn("does not allow it", failed.stderr)

    def prune(self, env, *args, status=0):
        return self.lunark("prune", self.to(), *args, "--yes", status=status, env=env)

    def test_documented_policies_of_prune(self):
        found = documented()
        for _ in range(3):
            self.backup(self.root, 0, "", "--no-latest")
        failed = self.prune(self.session(found["list"]), "--keep-last", "1", status=3)
        self.assertIn("does not allow it", failed.stderr)
        self.assertEqual(6, len(self.keys()))
        self.prune(self.session(found["prune"]), "--keep-last", "2")
        self.assertEqual(4, len(self.keys()))
        self.backup(self.session(found["backup"], found["prune"]), 0, "", "--no-latest", "--keep-last", "1")
        self.assertEqual(2, len(self.keys()))
        failed = self.prune(self.session(found["prune"]), "--orphans", status=3)
        self.assertIn("does not allow it", failed.stderr)
        self.prune(self.session(found["prune"], found["orphans"]), "--orphans")
        key = "/bucket/n/n-2020-01-01T000000Z.tar.gz"
        answer = self.signed("POST", key + "?uploads=")
        (upload,) = [e.text for e in xml.fromstring(answer).iter() if e.tag.endswith("}UploadId")]
        self.signed("PUT", f"{key}?partNumber=1&uploadId={urllib.parse.quote(upload)}", b"part")
        time.sleep(1.1)
        said = self.prune(self.session(found["prune"], found["orphans"]), "--orphans", "--older-than", "1s")
        self.assertIn("1 left-over things deleted", said.stderr)
        self.assertEqual([], self.uploads())

    def test_no_list(self):
        env = self.session(allow("PutObject", "AbortMultipartUpload", "GetObject"))
        self.backup(env)
        self.assertEqual(1, self.latest())
        failed = self.lunark("restore", "--from", self.to(), "--item", "n", "--into", self.path("into"), status=3, env=env)
        self.assertIn("the policy of this key or of the bucket does not allow it", failed.stderr)
        self.assertNotIn(env["AWS_SECRET_ACCESS_KEY"], failed.stderr)

    def test_no_abort(self):
        """An upload that can't be removed is said."""
        env = self.session(allow("PutObject", "GetObject"))
        self.backup(env)
        self.write("mine/policies/cut.lua", """return require "lunark.policy" { api = 1, name = "cut", summary = "fails",
          needs = { exec = { "sh" } }, options = {}, backup = function(job)
          job:save("cut", { program = { "sh", "-c", "head -c 30000000 /dev/urandom; exit 3" }, suffix = ".x" }) end }""")
        failed = self.lunark("backup", "cut", "--scripts", self.path("mine"), "--to", self.to(), status=1, env=env)
        self.assertIn("the unfinished upload of", failed.stderr)
        self.assertIn("could not be removed", failed.stderr)
        self.assertEqual(3, len(self.keys()))
        self.lunark("backup", "cut", "--scripts", self.path("mine"), "--to", self.to(), status=1, env=self.root)
        self.assertEqual(1, len(self.uploads()), "only that of the first")

    def test_encryption_is_demanded(self):
        everything = allow("*", resource=[OBJECTS, BUCKET])
        env = self.session(everything, {
            "Effect": "Deny", "Action": ["s3:PutObject"], "Resource": OBJECTS,
            "Condition": {"StringNotEquals": {"s3:x-amz-server-side-encryption": "AES256"}}})
        failed = self.backup(env, 3)
        self.assertIn("the policy of this key or of the bucket does not allow it", failed.stderr)
        self.assertEqual([], self.keys())
        os.unlink(self.path("tree/noise"))  # MinIO asks the header of single parts, too, which can't have it
        self.backup(env, 0, "&sse=AES256")
        self.assertEqual(3, len(self.keys()))

    def test_prefix_of_ones_own(self):
        env = self.session(allow("PutObject", "GetObject", "AbortMultipartUpload", resource="arn:aws:s3:::bucket/mine/*"),
                           allow("ListBucket", resource=BUCKET, Condition={"StringLike": {"s3:prefix": ["mine/*"]}}))
        self.lunark("backup", "files", self.path("tree"), "--name", "n", "--to", f"s3://bucket/mine?endpoint={self.url}",
                    env=env)
        self.lunark("list", f"s3://bucket/mine?endpoint={self.url}", env=env)
        self.lunark("list", f"s3://bucket/yours?endpoint={self.url}", env=env, status=3)

    def test_session_that_is_not_what_it_was(self):
        env = self.session(allow("*", resource=[OBJECTS, BUCKET]))
        for name in ("AWS_SESSION_TOKEN", "AWS_SECRET_ACCESS_KEY"):
            failed = self.backup({**env, name: "not/it"}, 3)
            self.assertIn("hint:", failed.stderr)
            self.assertNotIn("not/it", failed.stderr)
        self.backup(env)


class Locked(Case):
    """Retention by default: only `latest` gets another version, nothing is deleted."""
    LOCK = (b'<ObjectLockConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><ObjectLockEnabled>Enabled'
            b"</ObjectLockEnabled><Rule><DefaultRetention><Mode>COMPLIANCE</Mode><Days>1</Days></DefaultRetention></Rule>"
            b"</ObjectLockConfiguration>")

    def twice(self):
        self.backup(self.root)
        time.sleep(1)
        self.backup(self.root, 0, "&copy_max=5M")
        found = self.versions()
        self.assertEqual(5, len(found), found)
        for key, count in found.items():
            self.assertEqual(2 if "latest" in key else 1, count, key)
        self.assertEqual(2, self.lunark("list", self.to(), env=self.root).stdout.count(" ok "))
        self.lunark("restore", "--from", self.to(), "--item", "n", "--into", self.path("into"), env=self.root)

    def test_minio(self):
        self.start_server("minio", lock=("bucket",))
        self.signed("PUT", "/bucket?object-lock=", self.LOCK)
        self.twice()
        key = [key for key in self.keys() if "latest" not in key][0]
        tree = xml.fromstring(self.signed("GET", "/bucket?versions=&prefix=" + urllib.parse.quote(key, "")))
        (version,) = [e.text for e in tree.iter() if e.tag.endswith("}VersionId")]
        with self.assertRaisesRegex(RuntimeError, "(?i)lock|WORM"):
            self.signed("DELETE", f"/bucket/{urllib.parse.quote(key)}?versionId={version}")

    def test_versions(self):
        self.servers.versioning = True
        self.start_server("versitygw")
        self.signed("PUT", "/bucket?versioning=", b'<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
                    b"<Status>Enabled</Status></VersioningConfiguration>")
        self.twice()


class Rules(Case):
    def test_the_documented_rules_never_touch_latest(self):
        self.start_server("moto")
        self.backup(self.root)
        with open(os.path.join(ROOT, "docs", "stores-s3.md"), encoding="utf-8") as file:
            (text,) = re.findall(r"```json\n(\{ \"Rules\".*?)```", file.read(), re.S)
        rules = json.loads(text.replace("PREFIX/", "").replace("data", "n"))["Rules"]
        boto = ("import boto3, json, sys; s3 = boto3.client('s3'); s3.put_bucket_lifecycle_configuration("
                "Bucket='bucket', LifecycleConfiguration={'Rules': json.load(sys.stdin)})")
        python = os.path.join(os.path.dirname(servers.MOTO), "python")
        subprocess.run([python, "-c", boto], input=json.dumps(rules).encode(), env=self.servers.env, check=True)
        (prefix,) = [rule["Filter"]["Prefix"] for rule in rules if "Expiration" in rule]
        touched = [key for key in self.keys() if key.startswith(prefix)]
        self.assertEqual(2, len(touched), "the dated archive and its manifest")
        self.assertEqual(["n/n-latest.tar.gz"], [key for key in self.keys() if key not in touched])


class Moto(Case):
    """Users of IAM, action by action."""

    def setUp(self):
        super().setUp()
        self.start_server("moto")

    def unsigned(self, count):
        request = urllib.request.Request(self.url + "/moto-api/reset-auth", str(count).encode(), method="POST",
                                         headers={"content-type": "text/plain"})
        urllib.request.urlopen(request, timeout=30).close()

    def user(self, name, *actions):
        self.unsigned(3)
        self.servers.iam(self.url, "CreateUser", UserName=name)
        self.servers.iam(self.url, "PutUserPolicy", UserName=name, PolicyName="p",
                         PolicyDocument=policy(allow(*actions, resource="*")))
        key = self.servers.iam(self.url, "CreateAccessKey", UserName=name)
        self.unsigned(0)
        return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}

    def count(self):
        return self.lunark("list", self.to(), env=self.root).stdout.count(" ok ")

    def test_put_only(self):
        env = self.user("put", "PutObject", "AbortMultipartUpload")
        stored = self.backup(env, None)
        self.assertIn(stored.returncode, (0, 1))
        self.assertEqual(1, self.count())
        self.lunark("list", self.to(), status=3, env=env)

    def test_no_list(self):
        self.backup(self.user("writer", "PutObject", "AbortMultipartUpload", "GetObject"))
        self.assertEqual(1, self.count())

    def test_read_only(self):
        self.backup(self.root)
        env = self.user("reader", "GetObject", "ListBucket")
        self.lunark("restore", "--from", self.to(), "--item", "n", "--into", self.path("into"), env=env)
        failed = self.backup(env, 3)
        self.assertIn("does not allow it", failed.stderr)
        self.assertEqual(1, self.count())


if __name__ == "__main__":
    harness.main()
