#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Google's side of a backup, as strict as Google: token services, a metadata server, and a door to the store that lets
nobody in without a token that holds, nor without the permissions. Behind the door is an emulator, which looks at
neither. It gives nothing to a request that is not exactly what the service asks for, and keeps what it was asked.

    /token          RFC 7523 (RS256, verified with openssl) and refresh tokens: https://oauth2.googleapis.com/token
    /sts            RFC 8693: https://sts.googleapis.com/v1/token
    /identity       a build server's tokens for other services, such as GitHub's
    /iam/...        https://iamcredentials.googleapis.com/v1/...:generateAccessToken
    /computeMetadata/v1/instance/service-accounts/default/token"""
import base64
import http.client
import http.server
import json
import os
import re
import subprocess
import tempfile
import threading
import time
import urllib.parse

SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
GRANT = "urn:ietf:params:oauth:grant-type:"
METADATA = "/computeMetadata/v1/instance/service-accounts/default/token"
CLIENT = {"client_id": "id.apps", "client_secret": "client-s3cret", "refresh_token": "1//refresh"}
AUDIENCE = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/k"
EMAIL = "backup@project.iam.gserviceaccount.com"


def openssl(*argv, **more):
    return subprocess.run(["openssl", *argv], check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more).stdout


def unbase64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Refused(Exception):
    """status, answer"""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, body, headers=()):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers or [("content-type", "application/json")]:
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def date_time_string(self, timestamp=None):
        return super().date_time_string(timestamp or self.server.clock())

    def serve(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        entry = {"method": self.command, "path": self.path, "headers": headers, "status": None,
                 "body": body if len(body) < 65536 else b""}
        self.server.asked.append(entry)
        try:
            status, answer, more = self.server.answer(self.command, self.path, headers, body)
        except Refused as refused:
            status, answer, more = *refused.args, ()
        entry["status"] = status
        try:
            self.reply(status, answer, more)
        except OSError:
            pass  # the client has gone

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = do_HEAD = serve


def must(condition, description, status=400, error="invalid_grant"):
    if not condition:
        raise Refused(status, {"error": error, "error_description": description})


def refuse(status, reason, message):
    raise Refused(status, {"error": {"code": status, "message": message, "errors": [
        {"domain": "global", "reason": reason, "message": message}]}})


class Tokens:
    """Who may have a token. `lifetime` is in seconds; `skew` is how far this clock is ahead."""

    def __init__(self):
        self.lifetime, self.skew, self.given, self.alive = 3600, 0, 0, {}
        self.subject = lambda: "subject-token"
        self.public_key = None

    def clock(self):
        return time.time() + self.skew

    def fresh(self):
        """A new access token."""
        self.given += 1
        token = f"ya29.token-{self.given}"
        self.alive[token] = time.time() + self.lifetime
        return token

    def oauth(self):
        return 200, {"access_token": self.fresh(), "expires_in": self.lifetime, "token_type": "Bearer"}, ()

    def make_key(self, folder, url, **more):
        """The text of a service account's key, which /token knows from now on."""
        private = openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048").decode()
        self.public_key = os.path.join(folder, "public.pem")
        with open(self.public_key, "wb") as file:
            file.write(openssl("pkey", "-pubout", input=private.encode()))
        return json.dumps({"type": "service_account", "client_email": EMAIL, "private_key": private,
                           "private_key_id": "key-1", "token_uri": url + "/token", **more})

    def assertion(self, text, url):
        """RFC 7515, 7519, 7523; https://developers.google.com/identity/protocols/oauth2/service-account"""
        head, claims, signature = text.split(".")
        must(json.loads(unbase64(head)) == {"alg": "RS256", "typ": "JWT", "kid": "key-1"}, "Invalid JWT header.")
        with tempfile.NamedTemporaryFile() as file:
            file.write(unbase64(signature))
            file.flush()
            try:
                openssl("dgst", "-sha256", "-verify", self.public_key, "-signature", file.name,
                        input=f"{head}.{claims}".encode())
            except subprocess.CalledProcessError:
                must(False, "Invalid JWT Signature.")
        claims = json.loads(unbase64(claims))
        must(claims["iss"] == EMAIL, "Invalid grant: account not found")
        must(claims["aud"] == url + "/token" and claims["scope"] == SCOPE, "Invalid JWT: audience or scope.")
        now = self.clock()
        must(now - 600 < claims["iat"] <= now + 60 and claims["iat"] < claims["exp"] <= claims["iat"] + 3600,
             "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat "
             "and exp values in the JWT claim.")

    def token(self, form, url):
        if form.get("grant_type") == GRANT + "jwt-bearer":
            self.assertion(form["assertion"], url)
        else:
            must(form == {"grant_type": "refresh_token", **CLIENT}, "Bad Request")
        return self.oauth()

    def sts(self, form):
        must(form.get("subject_token") == self.subject(), "The given token is not the pool's.", error="invalid_grant")
        rest = {name: value for name, value in form.items() if name not in ("subject_token", "scope")}
        must(rest == {"grant_type": GRANT + "token-exchange", "audience": AUDIENCE,
                      "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
                      "subject_token_type": "urn:ietf:params:oauth:token-type:jwt"}, "A parameter is wrong.")
        must(form["scope"] in (SCOPE, PLATFORM), "Invalid scope.")
        return self.oauth()

    def impersonate(self, path, headers, body):
        must(path == f"/iam/serviceAccounts/{EMAIL}:generateAccessToken", "no such account", 404)
        self.check_token(headers)
        asked = json.loads(body)
        must(asked == {"scope": [SCOPE], "lifetime": "3600s"}, "a field is wrong")
        ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + self.lifetime))
        return 200, {"accessToken": self.fresh(), "expireTime": ends}, ()

    def metadata(self, headers):
        must(headers.get("metadata-flavor") == "Google" and "x-forwarded-for" not in headers, "Forbidden", 403)
        status, body, _ = self.oauth()
        return status, body, [("content-type", "application/json"), ("Metadata-Flavor", "Google")]

    def check_token(self, headers):
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or self.alive.get(token, 0) < time.time():
            refuse(401, "authError", "Invalid Credentials")


class GoogleServer(Tokens, http.server.ThreadingHTTPServer):
    """Runs in a thread until close(). `asked` has the requests; `allowed` the storage.objects permissions (None: all);
    `before(method, path)` is called at the door. With `upstream` None there is no store."""
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, upstream=None):
        Tokens.__init__(self)
        http.server.ThreadingHTTPServer.__init__(self, ("127.0.0.1", 0), Handler)
        self.upstream = urllib.parse.urlsplit(upstream) if upstream else None
        self.asked, self.allowed, self.before = [], None, lambda method, path: None
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.host = self.url[len("http://"):]
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def answer(self, method, path, headers, body):
        place = path.partition("?")[0]
        if place in ("/token", "/sts"):
            form = dict(urllib.parse.parse_qsl(body.decode(), strict_parsing=True))
            must(method == "POST" and headers["content-type"] == "application/x-www-form-urlencoded" and
                 "authorization" not in headers, "POST a form")
            return self.token(form, self.url) if place == "/token" else self.sts(form)
        if place.startswith("/iam/"):
            return self.impersonate(place, headers, body)
        if place == "/identity":
            must(method == "GET" and path.endswith("?audience=google") and
                 headers.get("authorization") == "bearer request-s3cret", "not for you", 403)
            return 200, {"value": self.subject()}, ()
        if place == METADATA:
            return self.metadata(headers)
        self.before(method, path)
        self.check_token(headers)
        self.check_permission(method, path)
        return self.ask(method, path, headers, body)

    def ask(self, method, path, headers=(), body=b""):
        client = http.client.HTTPConnection(self.upstream.hostname, self.upstream.port, timeout=60)
        try:
            headers = {name: value for name, value in dict(headers).items()
                       if name not in ("authorization", "host", "connection", "expect", "content-length")}
            client.request(method, path, body or (b"" if method in ("PUT", "POST") else None), headers)
            reply = client.getresponse()
            return reply.status, reply.read(), [one for one in reply.getheaders() if one[0].lower() not in (
                "content-length", "transfer-encoding", "connection", "date", "server")]
        finally:
            client.close()

    # --- permissions: https://cloud.google.com/storage/docs/access-control/iam-json ---

    def need(self, permission, key=None):
        if self.allowed is not None and permission not in self.allowed:
            refuse(403, "forbidden", f"{EMAIL} does not have storage.objects.{permission} access to the Google Cloud "
                   f"Storage {'object' if key else 'bucket'}.")

    def creates(self, bucket, key):
        """To make an object; where there is one, it is replaced, and that takes `delete`."""
        self.need("create", key)
        if self.ask("GET", f"/storage/v1/b/{bucket}/o/{key}")[0] == 200:
            self.need("delete", key)

    def check_permission(self, method, path):
        place, _, query = path.partition("?")
        query = dict(urllib.parse.parse_qsl(query))
        if place.startswith("/upload/"):
            if method == "POST":
                self.creates(place.split("/")[5], urllib.parse.quote(query["name"], safe=""))
            return
        found = re.fullmatch(r"/storage/v1/b/([^/]+)/o(?:/([^/]+)(?:/rewriteTo/b/([^/]+)/o/([^/]+))?)?", place)
        bucket, key, to_bucket, to = found.groups()
        if to:
            self.need("get", key)
            self.creates(to_bucket, to)
        elif not key:
            self.need("list")
        else:
            self.need({"GET": "get", "DELETE": "delete", "PATCH": "update"}[method], key)

    # --- what was seen ---

    def seen(self, method, pattern):
        return [one for one in self.asked if one["method"] == method and re.search(pattern, one["path"])]

    def sessions(self):
        """(begun, made into objects, ended by hand): numbers of resumable sessions."""
        puts = self.seen("PUT", r"upload_id=|/upload/")
        return (len([one for one in self.seen("POST", "uploadType=resumable") if one["status"] == 200]),
                len([one for one in puts if one["status"] in (200, 201)]),
                len([one for one in self.seen("DELETE", "^/upload/") if one["status"] in (200, 204, 499)]))

    def close(self):
        self.shutdown()
        self.server_close()
