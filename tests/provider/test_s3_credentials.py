#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Backups to S3 with the credentials that people already have: each source against a service that checks what it is
asked, or moto's own, with a real store behind; expiry and swapped files in the middle of an upload; proxies."""
import json
import os
import subprocess
import sys
import urllib.parse
import urllib.request
import xml.etree.ElementTree as xml

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "support"))

import harness  # noqa: E402
import servers  # noqa: E402
from aws_server import ROLES, TOKEN, AwsServer  # noqa: E402

ROLE = AwsServer.role
# Whoever asks this one for metadata has made a mistake.
PROXY = "http://127.0.0.1:1"


SESSIONS = 40


class Case(harness.Case):
    """moto with a role, and sessions of it: moto checks signatures and session tokens. A service that hands them out."""

    def setUp(self):
        super().setUp()
        self.servers = servers.Servers(self.dir)
        self.addCleanup(self.servers.stop)
        port = self.servers.moto(["bucket"])
        self.moto = f"http://127.0.0.1:{port}"
        self.without_signature(2 + SESSIONS)
        trust, allow = ({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", **more}]}
                        for more in ({"Principal": {"AWS": "*"}}, {"Resource": "*"}))
        self.role = self.call("iam", Action="CreateRole", Version="2010-05-08", RoleName="night",
                              AssumeRolePolicyDocument=json.dumps(trust))["Arn"]
        self.call("iam", Action="PutRolePolicy", Version="2010-05-08", RoleName="night", PolicyName="all",
                  PolicyDocument=json.dumps(allow))
        sessions = [self.call("sts", Action="AssumeRole", Version="2011-06-15", RoleArn=self.role, RoleSessionName="x")
                    for _ in range(SESSIONS)]
        self.sessions = [(one["AccessKeyId"], one["SecretAccessKey"], one["SessionToken"]) for one in sessions]
        self.without_signature(0)
        self.service = AwsServer(self.sessions)
        self.addCleanup(self.service.close)
        self.tree = self.path("tree")
        self.write("tree/file", b"content")

    def without_signature(self, count):
        """moto takes so many calls before it checks signatures."""
        request = urllib.request.Request(self.moto + "/moto-api/reset-auth", str(count).encode(), method="POST",
                                         headers={"content-type": "text/plain"})
        urllib.request.urlopen(request, timeout=30).close()

    def call(self, service, **parameters):
        data = urllib.parse.urlencode(parameters).encode()
        request = urllib.request.Request(self.moto, data, headers={
            "Authorization": f"AWS4-HMAC-SHA256 Credential=x/20200101/us-east-1/{service}/aws4_request"})
        with urllib.request.urlopen(request, timeout=30) as reply:
            return {e.tag.split("}")[-1]: e.text for e in xml.fromstring(reply.read()).iter() if e.text}

    def url(self, query=""):
        return f"s3://bucket/?endpoint={self.moto}{query}"

    def backup(self, env, status=0, query=""):
        return self.lunark("backup", "files", self.tree, "--name", "n", "--to", self.url(query), status=status,
                           env={"HOME": self.path("home"), **env})

    def keys(self):
        """Keys that last, of a user."""
        return {name: self.servers.env[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}

    def ask(self, call):
        python = os.path.join(os.path.dirname(servers.MOTO), "python")
        return subprocess.run([python, "-c", harness.BOTO, call, "bucket", ""], env=self.servers.env, check=True,
                              stdout=subprocess.PIPE).stdout.decode().split()

    def stored(self):
        return len([key for key in self.ask("objects") if key.endswith(".tar.gz")])


class Credentials(Case):
    def asked(self, path):
        return [one for one in self.service.asked if one["path"] == path]

    # --- instances and containers ---

    def test_instance(self):
        env = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": self.service.url, "AWS_EC2_METADATA_DISABLED": "false"}
        self.backup(env)
        self.assertEqual(2, self.stored())
        self.assertEqual(self.service.token, self.asked(ROLES)[0]["headers"][TOKEN])
        self.assertEqual(1, len(self.asked(ROLES + "lunark-role")))

    def test_no_proxy_for_metadata(self):
        self.service.authorization = lambda: "Bearer one"
        instance = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": self.service.url, "AWS_EC2_METADATA_DISABLED": "false"}
        container = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": self.service.url + "/container",
                     "AWS_CONTAINER_AUTHORIZATION_TOKEN": "Bearer one"}
        for count, env in enumerate((instance, container), 1):
            failed = self.backup({**env, "http_proxy": PROXY, "no_proxy": ""}, status=3)
            self.assertNotIn("credentials", failed.stderr)
            self.assertEqual(count, self.service.given, "the store is asked by the proxy, which is not there")

    def test_no_instance(self):
        failed = self.backup({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1",
                              "AWS_EC2_METADATA_DISABLED": "false"}, status=3)
        self.assertIn("there are no AWS credentials; the instance's role, by 127.0.0.1:1", failed.stderr)
        self.assertIn("AWS_ACCESS_KEY_ID", failed.stderr)

    def test_container(self):
        token = self.write("pod-token", "Bearer one")
        self.service.authorization = lambda: "Bearer one"
        env = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": self.service.url + "/container",
               "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": token}
        self.backup(env)
        self.assertEqual(2, self.stored())
        self.write("pod-token", "Bearer two")
        failed = self.backup(env, status=3)
        self.assertIn("HTTP status 403: wrong token", failed.stderr)
        self.assertNotIn("Bearer two", failed.stderr)

    def test_container_service_elsewhere(self):
        failed = self.backup({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://credentials.example/x"}, status=3)
        self.assertIn("can't be had over http", failed.stderr)

    # --- roles ---

    def web_identity(self):
        self.write("mount/..first/token", "jwt.one")
        os.symlink("..first", self.path("mount", "..data"))
        os.symlink("..data/token", self.path("mount", "token"))
        self.service.authorization = lambda: "jwt.one"
        return {"AWS_WEB_IDENTITY_TOKEN_FILE": self.path("mount", "token"), "AWS_ROLE_ARN": ROLE,
                "AWS_ENDPOINT_URL_STS": self.service.url}

    def swap(self, text):
        """What a kubelet does: another directory, and a link that is renamed over the old one."""
        self.write("mount/..second/token", text)
        os.symlink("..second", self.path("mount", "..new"))
        os.rename(self.path("mount", "..new"), self.path("mount", "..data"))

    def test_web_identity(self):
        self.backup(self.web_identity())
        self.assertEqual(2, self.stored())
        self.assertNotIn("authorization", self.service.asked[0]["headers"])

    def test_web_identity_that_is_refused(self):
        env = self.web_identity()
        self.swap("jwt.of.another")
        failed = self.backup(env, status=3)
        self.assertIn("Not authorized (AccessDenied)", failed.stderr)
        self.assertIn("trust policy", failed.stderr)
        self.assertNotIn("jwt.of.another", failed.stderr)

    def test_role_of_a_profile(self):
        self.write("home/.aws/config", f"[profile night]\nrole_arn = {ROLE}\nsource_profile = base\n"
                   f"services = here\n[services here]\nsts =\n  endpoint_url = {self.service.url}\n")
        self.write("home/.aws/credentials", "[base]\naws_access_key_id = {AWS_ACCESS_KEY_ID}\n"
                   "aws_secret_access_key = {AWS_SECRET_ACCESS_KEY}\n".format(**self.keys()))
        self.backup({"AWS_PROFILE": "night"})
        self.assertEqual(2, self.stored())
        self.assertIn("Credential=" + self.keys()["AWS_ACCESS_KEY_ID"], self.service.asked[0]["headers"]["authorization"])
        self.backup({"AWS_ACCESS_KEY_ID": "other", "AWS_SECRET_ACCESS_KEY": "other"}, query="&profile=night")
        self.assertEqual(2, len(self.service.asked))

    # --- in the middle of an upload ---

    def slow_tree(self):
        tree = self.path("big")
        os.makedirs(tree)
        with open(os.path.join(tree, "noise"), "wb") as file:
            file.write(os.urandom(24 << 20))
        return tree

    def runs_while(self, env, change):
        """A backup with credentials for 2 s each; `change` is called when it has the first ones."""
        self.service.seconds = 2
        child = self.start("backup", "files", self.slow_tree(), "--name", "n", "--to", self.url(),
                           "--limit-rate", "6M", env={"HOME": self.path("home"), **env})
        while not self.service.given:
            self.assertIsNone(child.poll())
            child_wait(child, 0.05)
        change()
        _, err = child.communicate(timeout=60)
        self.assertEqual(0, child.returncode, err.decode())
        self.assertGreaterEqual(self.service.given, 3)
        self.assertEqual(2, self.stored())
        self.assertEqual([], self.ask("uploads"))
        return err.decode()

    def test_renewed_in_mid_upload(self):
        def change():
            self.swap("jwt.two")
            self.service.authorization = lambda: "jwt.two"
        self.runs_while(self.web_identity(), change)
        tokens = [dict(urllib.parse.parse_qsl(one["body"]))["WebIdentityToken"] for one in self.service.asked]
        self.assertEqual(("jwt.one", "jwt.two"), (tokens[0], tokens[-1]))

    def test_pod_identity_renewed_in_mid_upload(self):
        self.write("mount/..first/token", "pod one")
        os.symlink("..first", self.path("mount", "..data"))
        os.symlink("..data/token", self.path("mount", "token"))
        self.service.authorization = lambda: "pod one"

        def change():
            self.swap("pod two")
            self.service.authorization = lambda: "pod two"
        said = self.runs_while({"AWS_CONTAINER_CREDENTIALS_FULL_URI": self.service.url + "/container",
                                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": self.path("mount", "token")}, change)
        tokens = [one["headers"]["authorization"] for one in self.asked("/container")]
        self.assertEqual(("pod one", "pod two"), (tokens[0], tokens[-1]))
        self.assertNotIn("pod two", said)

    def test_instance_renewed_in_mid_upload(self):
        def change():
            self.service.token = "another-metadata-token"
        self.runs_while({"AWS_EC2_METADATA_SERVICE_ENDPOINT": self.service.url, "AWS_EC2_METADATA_DISABLED": "false"},
                        change)

    def test_role_renewed_in_mid_upload(self):
        """With the keys that its source has by then."""
        self.write("home/.aws/config", f"[profile night]\nrole_arn = {ROLE}\nsource_profile = base\n"
                   f"services = here\n[services here]\nsts =\n  endpoint_url = {self.service.url}\n")
        keys = "[base]\naws_access_key_id = {}\naws_secret_access_key = x\n"
        self.write("home/.aws/credentials", keys.format("AKONE"))
        self.runs_while({"AWS_PROFILE": "night"}, lambda: self.write("home/.aws/credentials", keys.format("AKTWO")))
        signed = [one["headers"]["authorization"] for one in self.service.asked]
        self.assertIn("Credential=AKONE/", signed[0])
        self.assertIn("Credential=AKTWO/", signed[-1])

    def test_not_to_be_renewed_in_mid_upload(self):
        env = self.web_identity()
        self.service.seconds = 1
        child = self.start("backup", "files", self.slow_tree(), "--name", "n", "--to", self.url(),
                           "--limit-rate", "6M", env=env)
        while not self.service.given:
            self.assertIsNone(child.poll())
            child_wait(child, 0.05)
        self.service.authorization = lambda: "jwt.nobody.has"
        _, err = child.communicate(timeout=60)
        self.assertIn(child.returncode, (1, 3), err.decode())
        self.assertIn("Not authorized (AccessDenied)", err.decode())
        self.assertEqual(0, self.stored())


def child_wait(child, seconds):
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        pass


class Moto(Case):
    """moto's own STS and metadata service."""

    def test_assumed_role(self):
        config = self.write("config", f"[profile night]\nrole_arn = {self.role}\ncredential_source = Environment\n")
        env = {**self.keys(), "AWS_CONFIG_FILE": config, "AWS_ENDPOINT_URL_STS": self.moto}
        self.backup(env, query="&profile=night")
        self.assertEqual(2, self.stored())
        failed = self.backup({**env, "AWS_SECRET_ACCESS_KEY": "wrong"}, query="&profile=night", status=3)
        self.assertIn("SignatureDoesNotMatch", failed.stderr)

    def test_web_identity(self):
        # Given to whoever asks, and unsigned, as the one call that may be so here; the session is checked.
        self.without_signature(1)
        token = self.write("token", "a.web.token")
        self.backup({"AWS_WEB_IDENTITY_TOKEN_FILE": token, "AWS_ROLE_ARN": self.role, "AWS_ENDPOINT_URL": self.moto})
        self.assertEqual(2, self.stored())

    def test_session_tokens(self):
        access, secret, token = self.sessions[0]
        env = {"AWS_ACCESS_KEY_ID": access, "AWS_SECRET_ACCESS_KEY": secret}
        self.backup({**env, "AWS_SESSION_TOKEN": token})
        failed = self.backup({**env, "AWS_SESSION_TOKEN": "not/the/one"}, status=3)
        self.assertNotIn("not/the/one", failed.stderr)

    def test_metadata_service(self):
        # Its keys are canned: moto's store refuses them, after its metadata service gave them.
        failed = self.backup({"AWS_EC2_METADATA_SERVICE_ENDPOINT": self.moto, "AWS_EC2_METADATA_DISABLED": ""},
                             status=3)
        self.assertIn("the credentials are from the instance's role, by 127.0.0.1", failed.stderr)
        self.assertNotIn("test-secret-key", failed.stderr)


if __name__ == "__main__":
    harness.main()
