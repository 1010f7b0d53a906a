#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Backups to Google Cloud Storage with the credentials that people already have: each source against a service that
checks what it is asked, with an emulator behind; expiry and swapped files in the middle of an upload; proxies;
permissions one by one; what is left when an upload is given up."""
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "support"))

import harness  # noqa: E402
import servers  # noqa: E402
from google_server import AUDIENCE, CLIENT, EMAIL, METADATA, GoogleServer, refuse  # noqa: E402

# Whoever asks this one for metadata has made a mistake.
PROXY = "http://127.0.0.1:1"
READ = {"get", "list"}
DOC = os.path.join(ROOT, "docs", "stores-gcs.md")


class Refusing(BaseHTTPRequestHandler):
    """What is no metadata server."""

    def do_GET(self):
        self.send_error(403)

    def log_message(self, *_):
        pass


class Case(harness.Case):
    """An emulator behind the door of a GoogleServer."""
    emulator = "fakegcs"

    def setUp(self):
        super().setUp()
        self.servers = servers.Servers(self.dir)
        self.addCleanup(self.servers.stop)
        port = getattr(self.servers, self.emulator)(["bucket"])
        self.google = GoogleServer(f"http://127.0.0.1:{port}")
        self.addCleanup(self.google.close)
        self.tree = self.path("tree")
        self.write("tree/file", b"content")
        self.url = f"gs://bucket/?endpoint={self.google.url}"

    def env(self, **more):
        return {"HOME": self.path("home"), "NO_GCE_CHECK": "true", **more}

    def backup(self, env, status=0, **more):
        return self.lunark("backup", "files", self.tree, "--name", "n", "--to", self.url, status=status,
                           env=self.env(**env), **more)

    def stored(self):
        """Keys in the bucket."""
        _, body, _ = self.google.ask("GET", "/storage/v1/b/bucket/o")
        return sorted(one["name"] for one in json.loads(body).get("items", []))

    def read_text(self, name):
        with open(self.path(name), encoding="utf-8") as file:
            return file.read()

    def assert_backup(self):
        kinds = [key.split("-")[-1].split(".", 1)[-1] for key in self.stored()]
        self.assertEqual(["manifest.json", "tar.gz", "tar.gz"], sorted(kinds), self.stored())

    def forms(self, path):
        return [one for one in self.google.asked if one["path"] == path]

    def service_account(self, **more):
        path = self.write("key.json", self.google.make_key(self.dir, self.google.url, **more))
        return {"GOOGLE_APPLICATION_CREDENTIALS": path}

    def federated(self, **more):
        """A token in a mounted directory, which a kubelet swaps."""
        self.write("mount/..first/token", "subject.one")
        os.symlink("..first", self.path("mount", "..data"))
        os.symlink("..data/token", self.path("mount", "token"))
        self.google.subject = lambda: "subject.one"
        return {"GOOGLE_APPLICATION_CREDENTIALS": self.write("federated.json", json.dumps({
            "type": "external_account", "audience": AUDIENCE, "token_url": self.google.url + "/sts",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "credential_source": {"file": self.path("mount", "token")}, **more}))}

    def swap(self, text):
        """What a kubelet does: another directory, and a link that is renamed over the old one."""
        self.write("mount/..second/token", text)
        os.symlink("..second", self.path("mount", "..new"))
        os.rename(self.path("mount", "..new"), self.path("mount", "..data"))

    def begin(self, env, rate="6M"):
        """A backup of 24 MiB that takes some seconds, and has begun."""
        os.makedirs(self.path("big"))
        self.write("big/noise", os.urandom(24 << 20))
        child = self.start("backup", "files", self.path("big"), "--name", "n", "--to", self.url, "--limit-rate", rate,
                           env=self.env(**env))
        self.wait_until(child, lambda: self.google.seen("PUT", "upload_id="))
        return child

    def end(self, child, status=0):
        """What it says on standard error until its end."""
        _, err = child.communicate(timeout=60)
        self.assertEqual(status, child.returncode, err.decode())
        return err.decode()

    def wait_until(self, child, fn):
        while not fn():
            self.assertIsNone(child.poll(), child.stderr.read().decode() if child.poll() is not None else "")
            try:
                child.wait(0.05)
            except subprocess.TimeoutExpired:
                pass


class Credentials(Case):
    def test_service_account(self):
        env = self.service_account()
        self.backup(env)
        self.assert_backup()
        self.assertEqual(1, len(self.forms("/token")))
        listed = self.lunark("list", self.url, env=self.env(**env))
        self.assertIn("n", listed.stdout)
        self.lunark("restore", "--from", self.url, "--item", "n", "--into", self.path("out"), env=self.env(**env))
        with open(os.path.join(self.path("out"), self.find("out", "file")), "rb") as file:
            self.assertEqual(b"content", file.read())

    def find(self, base, name):
        for folder, _, files in os.walk(self.path(base)):
            if name in files:
                return os.path.relpath(os.path.join(folder, name), self.path(base))
        return self.fail(f"no {name} below {base}")

    def test_service_account_of_another_key(self):
        env = self.service_account()
        with open(env["GOOGLE_APPLICATION_CREDENTIALS"], encoding="utf-8") as file:
            old = json.load(file)
        self.service_account()
        self.write("key.json", json.dumps(old))
        failed = self.backup(env, status=3)
        self.assertIn("GOOGLE_APPLICATION_CREDENTIALS: no access token: Invalid JWT Signature", failed.stderr)
        self.assertIn("the token service refuses these credentials", failed.stderr)
        self.assertNotIn(old["private_key"][40:80], failed.stderr)
        self.assertEqual([], self.stored())

    def test_clock_that_is_off(self):
        for skew in (7200, -7200):
            self.google.skew = skew
            done = self.backup(self.service_account())
            self.assertRegex(done.stderr, rf"the server's clock is {'-' * (skew < 0)}7[12]\d\d s ahead")

    def test_user(self):
        text = json.dumps({"type": "authorized_user", **CLIENT, "token_uri": self.google.url + "/token",
                           "quota_project_id": "payer"})
        self.write("home/.config/gcloud/application_default_credentials.json", text)
        done = self.backup({})
        self.assert_backup()
        self.assertEqual({"payer"}, {one["headers"].get("x-goog-user-project")
                                     for one in self.google.seen("POST", "^/upload")})
        self.assertNotIn(CLIENT["client_secret"], done.stderr)
        self.write("home/.config/gcloud/application_default_credentials.json", text.replace("1//", "2//"))
        failed = self.backup({}, status=3)
        self.assertIn("application_default_credentials.json: no access token: Bad Request", failed.stderr)

    def test_workload_identity(self):
        self.backup(self.federated())
        self.assert_backup()
        self.swap("subject.of.another")
        failed = self.backup({"GOOGLE_APPLICATION_CREDENTIALS": self.path("federated.json")}, status=3)
        self.assertIn("The given token is not the pool's", failed.stderr)
        self.assertNotIn("subject.of.another", failed.stderr)

    def test_workload_identity_of_a_service_account(self):
        address = f"{self.google.url}/iam/serviceAccounts/{EMAIL}:generateAccessToken"
        self.backup(self.federated(service_account_impersonation_url=address))
        self.assert_backup()
        used = {one["headers"]["authorization"] for one in self.google.seen("POST", "^/upload")}
        self.assertEqual({"Bearer ya29.token-2"}, used)

    def test_workload_identity_of_a_build_server(self):
        source = {"url": self.google.url + "/identity?audience=google",
                  "headers": {"Authorization": "bearer request-s3cret"},
                  "format": {"type": "json", "subject_token_field_name": "value"}}
        self.backup(self.federated(credential_source=source))
        self.assert_backup()
        self.write("federated.json", self.read_text("federated.json").replace("request-s3cret", "s3cret-of-another"))
        failed = self.backup({"GOOGLE_APPLICATION_CREDENTIALS": self.path("federated.json")}, status=3)
        self.assertIn("subject token: no access token: not for you", failed.stderr)
        self.assertNotIn("s3cret", failed.stderr)

    def test_metadata(self):
        self.backup({"GCE_METADATA_HOST": self.google.host, "NO_GCE_CHECK": ""})
        self.assert_backup()
        self.assertEqual(1, len(self.forms(METADATA)))

    def test_no_proxy_for_metadata(self):
        failed = self.backup({"GCE_METADATA_HOST": self.google.host, "NO_GCE_CHECK": "", "http_proxy": PROXY,
                              "no_proxy": ""}, status=3)
        self.assertEqual(1, self.google.given, failed.stderr)
        self.assertNotIn("credentials", failed.stderr, "the store is asked by the proxy, which is not there")

    def test_no_metadata(self):
        failed = self.backup({"GCE_METADATA_HOST": "127.0.0.1:1", "NO_GCE_CHECK": ""}, status=3)
        self.assertIn("there are no Google credentials: none in options, environment and files", failed.stderr)
        self.assertIn("set GOOGLE_APPLICATION_CREDENTIALS to a key file", failed.stderr)

    def test_another_in_the_place_of_the_metadata_server(self):
        other = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
        self.addCleanup(other.server_close)
        threading.Thread(target=other.serve_forever, daemon=True).start()
        self.addCleanup(other.shutdown)
        host = f"127.0.0.1:{other.server_port}"
        failed = self.backup({"GCE_METADATA_HOST": host, "NO_GCE_CHECK": ""}, status=3)
        self.assertIn("there are no Google credentials: none in options, environment and files", failed.stderr)
        self.assertIn("set GOOGLE_APPLICATION_CREDENTIALS to a key file", failed.stderr)

    def test_plain_tokens(self):
        self.backup({"GOOGLE_OAUTH_ACCESS_TOKEN": self.google.fresh()})
        self.assert_backup()
        path = self.write("token", self.google.fresh() + "\n")
        self.backup({"CLOUDSDK_AUTH_ACCESS_TOKEN_FILE": path})
        failed = self.backup({"GOOGLE_OAUTH_ACCESS_TOKEN": "ya29.unknown"}, status=3)
        self.assertIn("Invalid Credentials", failed.stderr)
        self.assertIn("the credentials are from GOOGLE_OAUTH_ACCESS_TOKEN", failed.stderr)
        self.assertNotIn("ya29.unknown", failed.stderr)

    def test_tokens_are_no_arguments(self):
        failed = self.lunark("backup", "files", self.tree, "--name", "n", "--to", self.url + "&token=ya29.x", status=2)
        self.assertNotIn("ya29.x", failed.stderr)


class Recovery(Case):
    """Where a session has to be asked how much it has."""
    emulator = "gcsemulator"

    def test_revoked_in_mid_upload(self):
        child = self.begin(self.service_account())
        self.google.alive.clear()
        self.end(child)
        self.assertEqual(2, self.google.given)
        self.assertEqual(1, self.google.sessions()[0])
        self.assert_backup()


class Settings(Case):
    def test_class_and_key(self):
        key = "projects/p/locations/l/keyRings/r/cryptoKeys/k"
        self.url += "&storage_class=NEARLINE&user_project=payer&kms_key_id=" + key
        self.write("tree/noise", os.urandom(3 << 20))
        self.backup(self.service_account())
        begun, = self.google.seen("POST", "uploadType=resumable")
        manifest, = self.google.seen("POST", "uploadType=multipart")
        latest, = self.google.seen("POST", "rewriteTo")
        for one in (begun, manifest, latest):
            self.assertIn(b'"storageClass":"NEARLINE"', one["body"])
            query = dict(urllib.parse.parse_qsl(one["path"].partition("?")[2]))
            self.assertEqual(key, query["destinationKmsKeyName" if one is latest else "kmsKeyName"])
        # The dated key must be free; `latest` must still be what was looked at.
        self.assertIn("ifGenerationMatch=0", begun["path"])
        self.assertIn("ifGenerationMatch=0", latest["path"])
        self.assertEqual({"payer"}, {one["headers"].get("x-goog-user-project")
                                     for one in self.google.asked if one["path"] != "/token"})


class MidUpload(Case):
    def test_renewed(self):
        self.google.lifetime = 4
        child = self.begin(self.federated(), rate="4M")
        self.swap("subject.two")
        self.google.subject = lambda: "subject.two"
        self.end(child)
        self.assertGreaterEqual(self.google.given, 3)
        self.assertEqual([], [one for one in self.google.asked if one["status"] == 401], "none was used after its end")
        self.assert_backup()

    def test_source_that_is_silent_for_longer_than_a_token_lives(self):
        self.google.lifetime = 2
        env = self.service_account()
        script = f"head -c 30000000 {self.path('noise')}; sleep 5; head -c 9000000 {self.path('noise')}"
        self.write("noise", os.urandom(29 << 20))
        self.write("policies/quiet.lua", """-- SPDX-License-Identifier: MIT
local policy = require "lunark.policy"
return policy {
  api = 1, name = "quiet", summary = "a program that is silent in its middle", needs = { exec = { "sh" } },
  options = { script = { "string" } },
  backup = function(job) job:save("n", { program = { "sh", "-c", job.options.script }, suffix = ".raw" }) end,
}
""")
        self.lunark("backup", "quiet", "--scripts", self.dir, "--script", script, "--to", self.url, env=self.env(**env))
        self.assertGreaterEqual(self.google.given, 2)
        self.assertEqual([], [one for one in self.google.asked if one["status"] == 401])
        self.assertEqual((1, 1, 0), self.google.sessions())

    def test_not_to_be_renewed(self):
        self.google.lifetime = 1
        child = self.begin(self.federated())
        self.google.subject = lambda: "nobody's"
        _, err = child.communicate(timeout=60)
        self.assertIn(child.returncode, (1, 3), err.decode())
        self.assertIn("The given token is not the pool's", err.decode())
        self.assertEqual([], self.stored())

    def test_source_that_fails(self):
        self.write("policies/broken.lua", """-- SPDX-License-Identifier: MIT
local policy = require "lunark.policy"
return policy {
  api = 1, name = "broken", summary = "a program that fails after 30 MB", needs = { exec = { "sh" } },
  options = {},
  backup = function(job)
    job:save("n", { program = { "sh", "-c", "head -c 30000000 /dev/urandom; exit 7" }, suffix = ".raw" })
  end,
}
""")
        failed = self.lunark("backup", "broken", "--scripts", self.dir, "--to", self.url, status=None,
                             env=self.env(**self.service_account()))
        self.assertIn(failed.returncode, (1, 3), failed.stderr)
        self.assertIn("7", failed.stderr)
        self.assertEqual((1, 0, 1), self.google.sessions())
        self.assertEqual([], self.stored())

    def test_ended(self):
        child = self.begin(self.service_account(), rate="3M")
        child.send_signal(signal.SIGTERM)
        self.end(child, 143)
        self.assertEqual((1, 0, 1), self.google.sessions())
        self.assertEqual([], self.stored())

    def test_store_that_fails(self):
        child = self.begin(self.service_account())

        def closed(method, path):
            if method == "PUT" and "upload_id" in path:
                refuse(403, "accountDisabled", "The account is disabled in this state.")
        self.google.before = closed
        err = self.end(child, 3)
        self.assertIn("billing account", err)
        self.assertEqual((1, 0, 1), self.google.sessions())
        self.assertEqual([], self.stored())


class Statuses(Case):
    """What the command makes of the store's answers: https://cloud.google.com/storage/docs/json_api/v1/status-codes"""

    def refuse_once(self, method, pattern, status, reason, times):
        left = [times]

        def door(asked, path):
            if asked == method and re.search(pattern, path) and left[0]:
                left[0] -= 1
                refuse(status, reason, "The store's words.")
        self.google.before = door

    def test_for_good(self):
        self.write("tree/noise", os.urandom(3 << 20))
        key, cases = self.service_account(), [
            (400, "invalidArgument"), (401, "authError"), (403, "forbidden"), (403, "accountDisabled"), (404, "notFound"),
            (405, "methodNotAllowed"), (409, "conflict"), (410, "gone"), (411, "required"), (413, "uploadTooLarge"),
            (416, "requestedRangeNotSatisfiable"), (451, "unavailableForLegalReasons"), (501, "notImplemented")]
        for step, method, pattern in (("begin", "POST", "uploadType=resumable"), ("part", "PUT", "upload_id=")):
            for status, reason in cases:
                with self.subTest(step, status=status, reason=reason):
                    self.google.asked.clear()
                    self.refuse_once(method, pattern, status, reason, -1)
                    failed = self.backup(key, status=None)
                    self.assertIn(failed.returncode, (1, 2, 3), failed.stderr)
                    if status in (401, 403):
                        self.assertEqual(3, failed.returncode, failed.stderr)
                        self.assertIn("the credentials are from GOOGLE_APPLICATION_CREDENTIALS", failed.stderr)
                    self.assertEqual([], self.stored())
                    begun, made, ended = self.google.sessions()
                    # A key that is taken by somebody else is tried with the next seconds.
                    expected = 0 if step == "begin" else 8 if status == 409 else 1
                    self.assertEqual((expected, 0, expected), (begun, made, ended))

    def test_for_a_moment(self):
        self.write("tree/noise", os.urandom(3 << 20))
        key = self.service_account()
        for status, reason in ((408, "requestTimeout"), (429, "rateLimitExceeded"), (500, "internalError"),
                               (502, "badGateway"), (503, "backendError"), (504, "gatewayTimeout"),
                               (403, "userRateLimitExceeded")):
            with self.subTest(status=status):
                before = len(self.stored())
                self.google.asked.clear()
                self.refuse_once("POST", "^/upload", status, reason, 2)
                self.lunark("backup", "files", self.tree, "--name", f"n{status}", "--to", self.url,
                            env=self.env(**key))
                self.assertEqual(before + 3, len(self.stored()), "no duplicate")
                self.assertEqual((1, 1, 0), self.google.sessions())


class Permissions(Case):
    """What docs/stores-gcs.md says that a command needs."""

    def setUp(self):
        super().setUp()
        self.key = self.service_account()
        with open(DOC, encoding="utf-8") as file:
            self.doc = file.read()
        self.needs = {command: set(re.findall(r"storage\.objects\.(\w+)", row))
                      for command, row in re.findall(r"^\| `(\w+)` \| (`storage\..*) \|$", self.doc, re.M)}

    def run_with(self, allowed, *args, status=0):
        self.google.allowed = allowed
        try:
            return self.lunark(*args, env=self.env(**self.key), status=status)
        finally:
            self.google.allowed = None

    def save(self, allowed, status=0):
        return self.run_with(allowed, "backup", "files", self.tree, "--name", "n", "--to", self.url, status=status)

    def test_backup(self):
        self.save(self.needs["backup"])
        time.sleep(1)
        self.save(self.needs["backup"])
        self.assertEqual(5, len(self.stored()))
        for less in self.needs["backup"]:
            time.sleep(1)
            self.save(self.needs["backup"] - {less}, status=3 if less == "create" else 1)

    def test_prune(self):
        for _ in range(3):
            self.save(None)
        prune = ("prune", self.url, "--keep-last", "1", "--yes")
        for less in sorted(self.needs["prune"]):
            failed = self.run_with(self.needs["prune"] - {less}, *prune, status=3)
            self.assertIn(f"storage.objects.{less}", failed.stderr)
        self.assertEqual(7, len(self.stored()))
        self.assertIn("2 backups deleted", self.run_with(self.needs["prune"], *prune).stderr)
        self.run_with(self.needs["prune"], "prune", self.url, "--orphans", "--yes")
        self.assertEqual(3, len(self.stored()))

    def test_rules_for_old_copies(self):
        rules = json.loads(re.search(r"```json\n(.*?)```", self.doc, re.S).group(1).replace("PREFIX/", ""))["rule"]
        self.tree = self.path("data")
        self.write("data/file", b"content")
        self.lunark("backup", "files", self.tree, "--to", self.url, env=self.env(**self.key))
        dated, latest = [key for key in self.stored() if key.startswith("data/data-2")], "data/data-latest.tar.gz"
        self.assertEqual(2, len(dated))
        self.assertIn(latest, self.stored())
        live = [rule["condition"]["matchesPrefix"] for rule in rules if rule["condition"].get("isLive") is not False]
        self.assertEqual([["data/data-2"]], live)
        self.assertFalse(latest.startswith("data/data-2"))

    def test_backup_that_only_creates(self):
        for count in (2, 4):
            done = self.save({"create"}, status=1)
            self.assertIn("latest not moved", done.stderr)
            self.assertIn("storage.objects.get", done.stderr)
            self.assertEqual(count, len(self.stored()))
            time.sleep(1)

    def test_backup_that_may_not_replace(self):
        self.save({"create", "get"})
        before = self.google.ask("GET", "/storage/v1/b/bucket/o/n%2Fn-latest.tar.gz")[1]
        time.sleep(1)
        done = self.save({"create", "get"}, status=1)
        self.assertIn("latest not moved", done.stderr)
        self.assertIn("storage.objects.delete", done.stderr)
        self.assertEqual(before, self.google.ask("GET", "/storage/v1/b/bucket/o/n%2Fn-latest.tar.gz")[1])

    def test_backup_that_may_not_create(self):
        done = self.save(READ, status=3)
        self.assertIn("storage.objects.create", done.stderr)
        self.assertIn("the credentials are from GOOGLE_APPLICATION_CREDENTIALS", done.stderr)
        self.assertEqual([], self.stored())

    def test_reading(self):
        self.save(None)
        self.run_with(self.needs["list"], "list", self.url)
        self.run_with(self.needs["restore"], "restore", "--from", self.url, "--item", "n", "--into", self.path("out"))
        self.run_with(self.needs["verify"], "verify", self.url)
        archive = next(key for key in self.stored() if key.endswith("Z.tar.gz"))
        one = f"gs://bucket/{archive}?endpoint={self.google.url}"
        self.run_with({"get"}, "restore", "--from", one, "--into", self.path("one"))
        failed = self.run_with({"get"}, "list", self.url, status=3)
        self.assertIn("storage.objects.list", failed.stderr)


if __name__ == "__main__":
    harness.main()
