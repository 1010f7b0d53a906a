# SPDX-License-Identifier: MIT
"""MinIO, a part of servers.Servers: policies, sessions of STS, object lock, server-side encryption.

Buckets are made by signed requests; `signed` makes such a request of any kind, `session` gives keys that a policy
narrows."""
import datetime
import hashlib
import hmac
import os
import time
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree as xml

VERSION = "0.0.0-20260212201848-7aac2a2c5b7c"
ACCESS, SECRET, REGION = "lunarktestaccess", "lunark/test+secret=key", "us-east-1"
KMS_KEY = "lunark-test-key"
KMS = KMS_KEY + ":MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI="  # 32 bytes


def signature(method, path, query, headers, body, keys, service, now):
    """Signature Version 4, written apart from the one that is tested: the header Authorization."""
    def mac(key, text):
        return hmac.new(key, text.encode(), hashlib.sha256).digest()
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    canonical = "\n".join((method, path, query, lines, names, hashlib.sha256(body).hexdigest()))
    scope = f"{now[:8]}/{REGION}/{service}/aws4_request"
    text = "\n".join(("AWS4-HMAC-SHA256", now, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    key = mac(mac(mac(mac(b"AWS4" + keys[1].encode(), now[:8]), REGION), service), "aws4_request")
    return f"AWS4-HMAC-SHA256 Credential={keys[0]}/{scope}, SignedHeaders={names}, Signature={mac(key, text).hex()}"


def signed(method, url, body=b"", headers=None, keys=(ACCESS, SECRET), service="s3"):
    """One request; the answer's body. A refusal raises with its text."""
    parts = urllib.parse.urlsplit(url)
    query = "&".join(sorted(f"{urllib.parse.quote(k, '')}={urllib.parse.quote(v, '')}" for k, v in
                            urllib.parse.parse_qsl(parts.query, keep_blank_values=True)))
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    all_headers = {"host": parts.netloc, "x-amz-date": now, "x-amz-content-sha256": hashlib.sha256(body).hexdigest(),
                   **{name.lower(): value for name, value in (headers or {}).items()}}
    all_headers["authorization"] = signature(method, parts.path or "/", query, all_headers, body, keys, service, now)
    del all_headers["host"]
    request = urllib.request.Request(urllib.parse.urlunsplit((*parts[:3], query, "")), body or None, all_headers,
                                     method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.read()
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{method} {url}: {error.code}: {error.read()[:500]}") from error


def session(url, policy):
    """Keys that may do what `policy` (text) says: {name: value} for the environment."""
    form = urllib.parse.urlencode({"Action": "AssumeRole", "Version": "2011-06-15", "Policy": policy}).encode()
    answer = signed("POST", url + "/", form, {"content-type": "application/x-www-form-urlencoded"}, service="sts")
    found = {e.tag.split("}")[-1]: e.text for e in xml.fromstring(answer).iter() if e.text}
    return {"AWS_ACCESS_KEY_ID": found["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": found["SecretAccessKey"],
            "AWS_SESSION_TOKEN": found["SessionToken"]}


class MinioServers:
    def minio(self, buckets, lock=(), **settings):
        """Starts it with these buckets, those in `lock` with object lock, and settings for its environment; its port."""
        program = os.path.join(self.cache, f"minio-{VERSION}", "minio")
        self.need(program, "minio")
        port, data = self.port(), os.path.join(self.scratch, "minio")
        os.makedirs(data, exist_ok=True)
        env = dict(self.clean(), MINIO_ROOT_USER=ACCESS, MINIO_ROOT_PASSWORD=SECRET, MINIO_BROWSER="off",
                   MINIO_KMS_SECRET_KEY=KMS, MINIO_UPDATE="off", HOME=self.scratch, MINIO_SCANNER_SPEED="slowest",
                   **settings)
        child = self.start([program, "server", "--quiet", "--address", f"127.0.0.1:{port}", data], "minio", env=env)
        self.wait_for(port, child, "minio")
        url = f"http://127.0.0.1:{port}"
        for bucket in buckets:
            self.make_bucket(url, bucket, bucket in lock)
        self.export_s3(url, ACCESS, SECRET, buckets[0])
        return port

    @staticmethod
    def make_bucket(url, bucket, lock):
        """It listens before it is ready."""
        end = time.monotonic() + 30
        while True:
            try:
                return signed("PUT", f"{url}/{bucket}", headers={"x-amz-bucket-object-lock-enabled": "true"} if lock else {})
            except (RuntimeError, ConnectionError) as error:
                starting = isinstance(error, ConnectionError) or ": 503: " in str(error)
                if time.monotonic() > end or not starting:
                    raise
                time.sleep(0.1)
