#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A service that hands out AWS credentials as EC2 (metadata v2), ECS, EKS Pod Identity and STS do. It gives nothing
to a request that is not exactly what they ask for, and keeps what it was asked."""
import http.server
import json
import threading
import time
import urllib.parse

TTL, TOKEN = "x-aws-ec2-metadata-token-ttl-seconds", "x-aws-ec2-metadata-token"
ROLES = "/latest/meta-data/iam/security-credentials/"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, text, kind="application/json"):
        body = text.encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def read(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        self.server.asked.append({"method": self.command, "path": self.path, "body": body,
                                  "headers": {k.lower(): v for k, v in self.headers.items()}})
        return body

    def do_PUT(self):
        self.read()
        if self.path != "/latest/api/token" or not self.headers.get(TTL, "").isdigit() or \
                self.headers.get("x-forwarded-for"):
            return self.reply(400, "")
        return self.reply(200, self.server.token, "text/plain")

    def do_GET(self):
        self.read()
        if self.path.startswith("/latest/"):
            if self.headers.get(TOKEN) != self.server.token:
                return self.reply(401, "")
            if self.path == ROLES:
                return self.reply(200, "lunark-role", "text/plain")
            if self.path == ROLES + "lunark-role":
                return self.reply(200, json.dumps({"Code": "Success", "Type": "AWS-HMAC", **self.server.fresh()}))
        elif self.path == "/container":
            if self.headers.get("authorization") != self.server.authorization():
                return self.reply(403, json.dumps({"code": "AccessDenied", "message": "wrong token"}))
            return self.reply(200, json.dumps(self.server.fresh()))
        return self.reply(404, "")

    def do_POST(self):
        form = dict(urllib.parse.parse_qsl(self.read(), strict_parsing=True))
        action = form.get("Action", "")
        good = self.path == "/" and form.get("Version") == "2011-06-15" and form.get("RoleSessionName") and \
            form.get("RoleArn") == self.server.role
        if action == "AssumeRoleWithWebIdentity":
            good = good and form.get("WebIdentityToken") == self.server.authorization() and \
                "authorization" not in self.headers
        elif action == "AssumeRole":
            good = good and "/sts/aws4_request" in self.headers.get("authorization", "")
        else:
            good = False
        if not good:
            return self.reply(403, "<ErrorResponse><Error><Code>AccessDenied</Code><Message>Not authorized.</Message>"
                                   "</Error></ErrorResponse>", "text/xml")
        found = self.server.fresh()
        found["SessionToken"] = found.pop("Token")
        inner = "".join(f"<{name}>{value}</{name}>" for name, value in found.items())
        return self.reply(200, f"<{action}Response xmlns='https://sts.amazonaws.com/doc/2011-06-15/'><{action}Result>"
                               f"<Credentials>{inner}</Credentials></{action}Result></{action}Response>", "text/xml")


class AwsServer(http.server.ThreadingHTTPServer):
    """Runs in a thread until close(). It gives the next of `sessions`, (id, secret, token), each time, for `seconds`;
    `authorization()` is the token that it wants; `given` counts, `asked` has the requests."""
    daemon_threads = True
    role = "arn:aws:iam::123456789012:role/lunark"
    token = "metadata-token"

    def __init__(self, sessions, seconds=3600):
        super().__init__(("127.0.0.1", 0), Handler)
        self.sessions, self.seconds = sessions, seconds
        self.asked, self.given = [], 0
        self.authorization = lambda: None
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def fresh(self):
        access, secret, token = self.sessions[self.given % len(self.sessions)]
        self.given += 1
        ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + self.seconds))
        return {"AccessKeyId": access, "SecretAccessKey": secret, "Token": token, "Expiration": ends}

    def close(self):
        self.shutdown()
        self.server_close()
