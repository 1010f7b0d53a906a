#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Test servers, ended by pid whatever happens. As a module: class Servers. As a command, tests/support/server:
runs a command beside a server.

    tests/support/server versitygw|moto|minio|fakegcs|gcsemulator|azurite|webdav [OPTIONS] -- COMMAND...
    tests/support/server faulty [OPTIONS] -- COMMAND...

Everything listens on a free port of 127.0.0.1 and keeps its data in a scratch folder that is removed. COMMAND's exit
status is the exit status; 128 + N if signal N ended it; 77 if the server can't be had here (the reason is on standard
error). TERM and INT go to COMMAND.

Options
  --bucket NAME        made before COMMAND starts (default lunark-test); more than one may be given
  --versioning         versitygw keeps versions
  --script FILE        faulty: the steps, see faulty.py
  --upstream SERVER    faulty: another server, started too; what no step answers goes there
  --tls                faulty: TLS with a certificate for 127.0.0.1; LUNARK_TEST_CA names its CA's file

Environment of COMMAND
  LUNARK_TEST_S3_URL, AWS_ENDPOINT_URL      http://127.0.0.1:PORT
  LUNARK_TEST_S3_BUCKET, LUNARK_TEST_S3_REGION, AWS_REGION
  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY (and LUNARK_TEST_S3_ACCESS_KEY, LUNARK_TEST_S3_SECRET_KEY)
  LUNARK_TEST_S3_DATA  versitygw: the folder in which each bucket is a folder
  LUNARK_TEST_HTTP_URL, LUNARK_TEST_HTTP_LOG  faulty: its address, and its log of requests (JSON lines)
Variables that name CA files or AWS profiles are taken out: they mean the machine, not the test."""
import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree as xml

from azurite_server import AzuriteServers
from gcs_server import GcsServers
from minio_server import MinioServers
from webdav_server import WebdavServers

HERE = os.path.dirname(os.path.abspath(__file__))
CACHE = os.environ.get("LUNARK_CACHE") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.join(os.environ.get("HOME", "/tmp"), ".cache"), "lunark")
GATEWAY = os.path.join(CACHE, "versitygw-1.8.0", "versitygw")
MOTO = os.path.join(CACHE, "moto-5.2.5", "bin", "moto_server")
ACCESS, SECRET, REGION = "lunarktestaccess", "lunark/test+secret=key", "us-east-1"
STORES = ("versitygw", "moto", "minio", "fakegcs", "gcsemulator", "azurite", "webdav")
UNAVAILABLE = 77


class Unavailable(unittest.SkipTest):
    """What a test needs is not here: raised in one, it skips it."""


def clean_environment():
    drop = ("CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "http_proxy", "https_proxy",
            "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "STORAGE_EMULATOR_HOST")
    return {k: v for k, v in os.environ.items()
            if k not in drop and not k.startswith(("AWS_", "GOOGLE_", "CLOUDSDK_", "GCE_", "AZURE_"))}


def free_port(host="127.0.0.1"):
    with socket.socket() as s:
        s.bind((host, 0))
        return s.getsockname()[1]


def make_available(path, name):
    """Builds or installs what is missing, as bootstrap does."""
    if not os.path.exists(path):
        subprocess.run(["sh", os.path.join(HERE, "tools.sh")], stdout=sys.stderr, check=False)
    if not os.path.exists(path):
        raise Unavailable(f"{name} is not here and could not be made (tests/support/tools.sh says why)")


class Servers(MinioServers, GcsServers, AzuriteServers, WebdavServers):
    """The children, in the order of their start; stop() ends them by pid, last first."""
    cache, unavailable = CACHE, Unavailable
    port, need, clean = staticmethod(free_port), staticmethod(make_available), staticmethod(clean_environment)

    def __init__(self, scratch, host="127.0.0.1"):
        self.host = host
        self.scratch, self.children, self.versioning = scratch, [], False
        self.env = clean_environment()

    def start(self, argv, name, **more):
        log = open(os.path.join(self.scratch, name + ".log"), "wb")
        child = subprocess.Popen(argv, env=more.pop("env", clean_environment()), stderr=log,
                                 stdout=more.pop("stdout", log), stdin=more.pop("stdin", subprocess.DEVNULL), **more)
        self.children.append((child, log))
        return child

    def wait_for(self, port, child, name, seconds=60):
        end = time.monotonic() + seconds
        while time.monotonic() < end and child.poll() is None:
            with socket.socket() as s:
                if s.connect_ex((self.host, port)) == 0:
                    return
            time.sleep(0.05)
        with open(os.path.join(self.scratch, name + ".log"), errors="replace") as text:
            raise RuntimeError(f"{name} did not come up: {text.read()[-2000:]}")

    def stop(self):
        for child, log in reversed(self.children):
            if child.poll() is None:
                child.terminate()
                try:
                    child.wait(10)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
            log.close()

    def export_s3(self, url, access=ACCESS, secret=SECRET, bucket=""):
        self.env.update(
            LUNARK_TEST_S3_URL=url, AWS_ENDPOINT_URL=url, LUNARK_TEST_S3_BUCKET=bucket, LUNARK_TEST_S3_REGION=REGION,
            AWS_REGION=REGION, AWS_ACCESS_KEY_ID=access, AWS_SECRET_ACCESS_KEY=secret,
            LUNARK_TEST_S3_ACCESS_KEY=access, LUNARK_TEST_S3_SECRET_KEY=secret)

    def versitygw(self, buckets, *options):
        """Starts it with these buckets and more words for its command line; its port."""
        make_available(GATEWAY, "versitygw 1.8.0")
        data, port = os.path.join(self.scratch, "data"), free_port(self.host)
        for bucket in buckets:
            os.makedirs(os.path.join(data, bucket))
        argv = [GATEWAY, "--access", ACCESS, "--secret", SECRET, "--region", REGION, "--port", f"{self.host}:{port}",
                *(option.replace("PORT", str(port)) for option in options), "posix"]
        if self.versioning:
            versions = os.path.join(self.scratch, "versions")
            os.makedirs(versions)
            argv += ["--versioning-dir", versions]
        child = self.start([*argv, data], "versitygw")
        self.wait_for(port, child, "versitygw")
        self.export_s3(f"http://{self.host}:{port}", bucket=buckets[0])
        self.env["LUNARK_TEST_S3_DATA"] = data
        return port

    def moto(self, buckets):
        """Signatures are checked after five set-up calls: user, policy, its attachment, key, and the first bucket."""
        make_available(MOTO, "moto 5.2.5")
        port = free_port()
        env = dict(clean_environment(), INITIAL_NO_AUTH_ACTION_COUNT="5")
        child = self.start([MOTO, "-H", "127.0.0.1", "-p", str(port)], "moto", env=env)
        self.wait_for(port, child, "moto")
        url = f"http://127.0.0.1:{port}"
        allow = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}'
        self.iam(url, "CreateUser", UserName="lunark")
        answer = self.iam(url, "CreatePolicy", PolicyName="all", PolicyDocument=allow)
        self.iam(url, "AttachUserPolicy", UserName="lunark", PolicyArn=answer["Arn"])
        key = self.iam(url, "CreateAccessKey", UserName="lunark")
        if len(buckets) > 1:
            raise SystemExit("server: with moto only one --bucket: its set-up calls are counted")
        request = urllib.request.Request(f"{url}/{buckets[0]}", method="PUT", headers={
            "Authorization": "AWS4-HMAC-SHA256 Credential=x/20200101/us-east-1/s3/aws4_request"})
        urllib.request.urlopen(request, timeout=30).close()
        self.export_s3(url, key["AccessKeyId"], key["SecretAccessKey"], buckets[0])
        return port

    def iam(self, url, action, **parameters):
        """One unsigned call; the answer's elements that have text, by name."""
        data = urllib.parse.urlencode({"Action": action, "Version": "2010-05-08", **parameters}).encode()
        request = urllib.request.Request(url, data, headers={
            "Authorization": "AWS4-HMAC-SHA256 Credential=x/20200101/us-east-1/iam/aws4_request"})
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                tree = xml.fromstring(reply.read())
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"moto: {action}: {error.code}: {error.read()[:500]}") from error
        return {e.tag.split("}")[-1]: e.text for e in tree.iter() if e.text and e.text.strip()}

    def faulty(self, args):
        argv = [sys.executable, os.path.join(HERE, "faulty.py"), "--log", os.path.join(self.scratch, "requests")]
        if args.script:
            argv += ["--script", os.path.abspath(args.script)]
        if args.upstream:
            argv += ["--upstream", f"http://127.0.0.1:{getattr(self, args.upstream)(args.bucket)}"]
        if args.tls:
            argv += self.certificates()
        child = self.start(argv, "faulty", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        line = child.stdout.readline().split()
        if line[:1] != [b"port"]:
            raise RuntimeError("faulty.py did not come up")
        url = f"http{'s' if args.tls else ''}://127.0.0.1:{int(line[1])}"
        if args.upstream:
            if "LUNARK_TEST_GCS_URL" in self.env:
                self.export_gcs(url)
            elif args.upstream == "azurite":
                self.env["AZURE_STORAGE_BLOB_ENDPOINT"] = url + "/" + self.env["AZURE_STORAGE_ACCOUNT"]
            else:
                self.export_s3(url, self.env["AWS_ACCESS_KEY_ID"], self.env["AWS_SECRET_ACCESS_KEY"], args.bucket[0])
        self.env["LUNARK_TEST_HTTP_URL"] = url
        self.env["LUNARK_TEST_HTTP_LOG"] = os.path.join(self.scratch, "requests")

    def certificates(self):
        """A CA of this run and a certificate for 127.0.0.1."""
        def openssl(*argv):
            subprocess.run(["openssl", *argv], cwd=self.scratch, check=True, stdin=subprocess.DEVNULL,
                           stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        openssl("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=lunark test CA")
        openssl("req", *new, "-keyout", "host.key", "-out", "host.csr", "-subj", "/CN=127.0.0.1")
        with open(os.path.join(self.scratch, "ext"), "w", encoding="ascii") as file:
            file.write("subjectAltName=IP:127.0.0.1,DNS:*.blob.localhost\n")
        openssl("x509", "-req", "-in", "host.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-out", "host.pem", "-days", "2", "-extfile", "ext")
        self.env["LUNARK_TEST_CA"] = os.path.join(self.scratch, "ca.pem")
        return ["--cert", os.path.join(self.scratch, "host.pem"), "--key", os.path.join(self.scratch, "host.key")]


def parse(argv):
    if "--" not in argv or argv[-1] == "--":
        raise SystemExit("server: write the command after --")
    at = argv.index("--")
    parser = argparse.ArgumentParser(prog="server", description="runs a command beside a test server")
    parser.add_argument("server", choices=(*STORES, "faulty"))
    parser.add_argument("--bucket", action="append")
    parser.add_argument("--versioning", action="store_true")
    parser.add_argument("--script")
    parser.add_argument("--upstream", choices=STORES)
    parser.add_argument("--tls", action="store_true")
    args = parser.parse_args(argv[:at])
    args.bucket = args.bucket or ["lunark-test"]
    return args, argv[at + 1:]


def run(command, env):
    """Runs it with TERM and INT passed on; its status as a shell has it."""
    child = subprocess.Popen(command, env=env)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda n, _: child.send_signal(n))
    status = child.wait()
    return status if status >= 0 else 128 - status


def interrupted(number, _):
    raise SystemExit(128 + number)


def main():
    args, command = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, interrupted)
    scratch = tempfile.mkdtemp(prefix="lunark-server.")
    servers = Servers(scratch)
    try:
        servers.versioning = args.versioning
        getattr(servers, args.server)(args if args.server == "faulty" else args.bucket)
        return run(command, servers.env)
    except Unavailable as error:
        print(f"server: {error}", file=sys.stderr)
        return UNAVAILABLE
    except FileNotFoundError as error:
        print(f"server: {error}", file=sys.stderr)
        return 127
    finally:
        servers.stop()
        shutil.rmtree(scratch, ignore_errors=True)
