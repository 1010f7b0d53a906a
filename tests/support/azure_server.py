#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A service that hands out tokens of Microsoft Entra ID as the authority, a machine's metadata service, and an App
Service do. It gives nothing to a request that is not exactly what they ask for, and keeps what it was asked."""
import base64
import http.server
import json
import threading
import time
import urllib.parse

TENANT, CLIENT, SECRET, HEADER = "tenant.example", "0f-client", "client~secret+/=", "identity-header"
AUTHORITY, MACHINE, APP = f"/{TENANT}/oauth2/v2.0/token", "/metadata/identity/oauth2/token", "/msi/token"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, answer, headers=None):
        body = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(body)),
                            **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def asked(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        path, _, query = self.path.partition("?")
        one = {"method": self.command, "path": path, "query": dict(urllib.parse.parse_qsl(query)), "body": body,
               "form": dict(urllib.parse.parse_qsl(body)), "headers": {k.lower(): v for k, v in self.headers.items()}}
        self.server.asked.append(one)
        return one

    def refused(self):
        """Faults that were asked for."""
        if not self.server.faults:
            return False
        status, headers = self.server.faults.pop(0)
        self.reply(status, {"error": "fault", "error_description": "asked for."}, headers)
        return True

    def do_GET(self):
        one = self.asked()
        if self.refused():
            return None
        want = {"api-version": "2018-02-01", "resource": "https://storage.azure.com/"}
        if self.server.client:
            want["client_id"] = self.server.client
        if one["path"] == MACHINE:
            good = one["headers"].get("metadata") == "true" and "x-forwarded-for" not in one["headers"]
        elif one["path"] == APP:
            want["api-version"] = "2019-08-01"
            good = one["headers"].get("x-identity-header") == HEADER
        else:
            return self.reply(404, {"error": "not_found"})
        if not good or one["query"] != want:
            return self.reply(400, {"error": "invalid_request", "error_description": "Identity not found"})
        token, ends = self.server.fresh()
        return self.reply(200, {"access_token": token, "expires_on": str(ends), "token_type": "Bearer",
                                "resource": want["resource"]})

    def do_POST(self):
        one = self.asked()
        if self.refused():
            return None
        form = one["form"]
        good = one["path"] == AUTHORITY and form.pop("client_id", "") == CLIENT \
            and form.pop("grant_type", "") == "client_credentials" \
            and form.pop("scope", "") == "https://storage.azure.com/.default" \
            and one["headers"]["content-type"] == "application/x-www-form-urlencoded"
        if not good or form not in ({"client_secret": SECRET}, {
                "client_assertion_type": ASSERTION, "client_assertion": self.server.assertion}):
            return self.reply(401, {"error": "invalid_client", "error_description":
                                    "AADSTS7000215: Invalid client secret provided. Trace ID: 1 Correlation ID: 2"})
        token, ends = self.server.fresh()
        return self.reply(200, {"access_token": token, "expires_in": int(ends - time.time()), "token_type": "Bearer"})


class AzureServer(http.server.ThreadingHTTPServer):
    """Runs in a thread until close(). Tokens last `seconds`; `given` has them, `asked` the requests; `client` is the
    identity that must be asked for, `assertion` the pod's token; `faults` are answered first: (status, headers). `really` is how long tokens last where
    that is not what is said."""
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.seconds, self.really, self.client, self.assertion = 3600, None, None, None
        self.asked, self.given, self.faults = [], [], []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def fresh(self):
        now = int(time.time())
        claims = {"aud": "https://storage.azure.com", "iss": "https://sts.windows.net/x/", "iat": now, "nbf": now - 5,
                  "exp": now + (self.really or self.seconds), "n": len(self.given)}
        parts = (json.dumps({"typ": "JWT", "alg": "HS256"}), json.dumps(claims), "unsigned")
        token = ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)
        self.given.append(token)
        return token, now + self.seconds

    def close(self):
        self.shutdown()
        self.server_close()
