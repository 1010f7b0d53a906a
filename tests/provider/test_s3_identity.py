#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Roles on MinIO, whose STS verifies what it gets: tokens of an identity provider on loopback (its keys, audience and
end), and the signature of who assumes a role. The sessions are those of the store itself."""
import base64
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "support"))

import harness  # noqa: E402
import servers  # noqa: E402

CLIENT = "lunark"
# MinIO's name for the role of that client.
ROLE = "arn:minio:iam:::role/" + base64.urlsafe_b64encode(hashlib.sha1(CLIENT.encode()).digest()).rstrip(b"=").decode()


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        body = json.dumps(self.server.describe() if "well-known" in self.path else {"keys": [self.server.key]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Issuer(http.server.ThreadingHTTPServer):
    """An OpenID provider with one RSA key."""
    daemon_threads = True

    def __init__(self, scratch):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.file = os.path.join(scratch, "issuer.pem")
        self.openssl("genrsa", "-out", self.file, "2048")
        modulus = self.openssl("rsa", "-in", self.file, "-noout", "-modulus").decode().strip().split("=")[1]
        self.key = {"kty": "RSA", "kid": "one", "use": "sig", "alg": "RS256", "e": "AQAB",
                    "n": encode(bytes.fromhex(modulus))}
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @staticmethod
    def openssl(*argv, **more):
        return subprocess.run(["openssl", *argv], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **more).stdout

    def describe(self):
        return {"issuer": self.url, "jwks_uri": self.url + "/keys", "authorization_endpoint": self.url + "/a",
                "token_endpoint": self.url + "/t", "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["RS256"]}

    def token(self, audience=CLIENT, seconds=3600, signature=None):
        now = int(time.time())
        head = encode(json.dumps({"alg": "RS256", "typ": "JWT", "kid": "one"}).encode())
        claims = {"iss": self.url, "aud": audience, "sub": "system:serviceaccount:backup:lunark", "iat": now - 7200,
                  "exp": now + seconds}
        text = f"{head}.{encode(json.dumps(claims).encode())}"
        made = self.openssl("dgst", "-sha256", "-sign", self.file, input=(signature or text).encode())
        return f"{text}.{encode(made)}"

    def close(self):
        self.shutdown()
        self.server_close()


class Identity(harness.Case):
    def setUp(self):
        super().setUp()
        self.issuer = Issuer(self.dir)
        self.addCleanup(self.issuer.close)
        self.servers = servers.Servers(self.dir)
        self.addCleanup(self.servers.stop)
        self.servers.minio(["bucket"], MINIO_IDENTITY_OPENID_CLIENT_ID=CLIENT,
                           MINIO_IDENTITY_OPENID_CONFIG_URL=self.issuer.url + "/.well-known/openid-configuration",
                           MINIO_IDENTITY_OPENID_ROLE_POLICY="readwrite")
        self.url = self.servers.env["AWS_ENDPOINT_URL"]
        self.write("tree/file", b"content")

    def backup(self, env, status=0):
        return self.lunark("backup", "files", self.path("tree"), "--name", "n", "--to", f"s3://bucket/?endpoint={self.url}",
                           status=status, env={"AWS_ENDPOINT_URL_STS": self.url, **env})

    def test_web_identity(self):
        env = {"AWS_WEB_IDENTITY_TOKEN_FILE": self.write("token", self.issuer.token()), "AWS_ROLE_ARN": ROLE}
        # MinIO has the identity provider's keys a moment after it listens.
        end = time.monotonic() + 20
        while self.backup(env, None).returncode and time.monotonic() < end:
            time.sleep(0.3)
        self.backup(env)
        for name, token in (("audience", self.issuer.token(audience="another")), ("end", self.issuer.token(seconds=-3600)),
                            ("signature", self.issuer.token(signature="something else"))):
            with self.subTest(name):
                self.write("token", token)
                failed = self.backup(env, 3)
                self.assertIn(f"role {ROLE}", failed.stderr)
                self.assertIn("hint:", failed.stderr)
                self.assertNotIn(token, failed.stderr)
        self.write("token", self.issuer.token())
        failed = self.backup({**env, "AWS_ROLE_ARN": ROLE + "x"}, 3)
        self.assertIn("not defined", failed.stderr)

    def test_role_of_a_profile(self):
        config = self.write("config", "[profile night]\nrole_arn = arn:aws:iam::123456789012:role/night\n"
                            "role_session_name = night+shift\nduration_seconds = 900\nsource_profile = base\n")
        keys = "[base]\naws_access_key_id = {}\naws_secret_access_key = {}\n"
        access, secret = self.servers.env["AWS_ACCESS_KEY_ID"], self.servers.env["AWS_SECRET_ACCESS_KEY"]
        env = {"AWS_CONFIG_FILE": config, "AWS_PROFILE": "night",
               "AWS_SHARED_CREDENTIALS_FILE": self.write("credentials", keys.format(access, secret))}
        self.backup(env)
        self.write("credentials", keys.format(access, "wrong/one"))
        failed = self.backup(env, 3)
        self.assertIn("AWS profile 'night', role", failed.stderr)
        self.assertNotIn("wrong/one", failed.stderr)


if __name__ == "__main__":
    harness.main()
