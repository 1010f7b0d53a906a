# SPDX-License-Identifier: MIT
"""CLOUD_PROVIDER and BUCKET in place of a store's URL, with every verb and every cloud's server; the credentials file
of a job's container."""
import http.server
import json
import os
import subprocess
import sys
import threading
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import LUNARK, Case, describe, environment, main  # noqa: E402


class Places(Case):
    def setUp(self):
        super().setUp()
        self.tree = self.path("tree")
        self.write("tree/a file", b"content")

    def backup(self, *more, **how):
        return self.lunark("backup", "files", self.tree, "--name", "n", *more, **how)

    def every_verb(self, provider, bucket, env):
        """Backup, list, verify, restore, prune with no URL at all; what backup and list said."""
        env = dict(env, CLOUD_PROVIDER=provider, BUCKET=bucket)
        stored = self.backup(env=env)
        listed = self.lunark("list", env=env)
        self.assertIn("n/n-", listed.stdout)
        into = self.path("into " + bucket.replace("/", "_"))
        self.lunark("restore", "--into", into, env=env)
        self.assertEqual(describe(self.tree), describe(into + self.tree))
        self.assertRegex(self.lunark("verify", env=env).stdout, "(?m)^ok ")
        self.assertIn("keep", self.lunark("prune", "--keep-last", "1", "--dry-run", env=env).stdout)
        return stored, listed


class Environment(Places):
    def test_aws(self):
        server = self.s3()
        env = dict(server.env(), AWS_ENDPOINT_URL=server.endpoint, AWS_REGION=server.region)
        stored, _ = self.every_verb("aws", "s3://bucket/nightly/", env)
        self.assertIn("CLOUD_PROVIDER and BUCKET say: s3://bucket/nightly", stored.stderr)
        self.every_verb("aws", "bucket", env)
        self.every_verb("aws", "bucket/other/place", env)
        found = server.objects("bucket")
        for prefix in ("nightly/n/n-", "n/n-", "other/place/n/n-"):
            self.assertEqual(3, len([key for key in found if key.startswith(prefix)]), found)

    def test_gcp(self):
        env = self.serve("fakegcs").env
        self.every_verb("gcp", "gs://bucket", env)
        self.every_verb("gcp", "bucket/dir", env)

    def test_azure(self):
        env = self.serve("azurite").env
        self.every_verb("azure", "bucket", env)
        self.every_verb("azure", "bucket/path/to/dir", env)
        listed = self.lunark("list", "azure://bucket/path/to/dir", "--json", env=env)
        self.assertIn("\"n/n-", listed.stdout)
        self.every_verb("azure", "azure://bucket/other", env)

    def test_an_option_wins_and_the_log_says_so(self):
        env = {"CLOUD_PROVIDER": "aws", "BUCKET": "s3://never/asked"}
        stored = self.backup("--to", self.path("store"), env=env)
        self.assertIn("--to is given: CLOUD_PROVIDER and BUCKET of the environment don't count", stored.stderr)
        self.assertTrue(os.path.isdir(self.path("store", "n")))
        listed = self.lunark("list", self.path("store"), env=env)
        self.assertIn("URL is given", listed.stderr)
        restored = self.lunark("restore", "--from", self.path("store"), "--into", self.path("into"), env=env)
        self.assertIn("--from is given", restored.stderr)
        self.backup(env={**env, "LUNARK_TO": self.path("second")})
        self.assertTrue(os.path.isdir(self.path("second", "n")))

    def test_what_is_wrong_is_said_before_anything_is_touched(self):
        both = "and BUCKET is '{}': they don't fit together"
        for provider, bucket, message in (
                ("gcp", "s3://bucket/x", both.format("s3://bucket/x")), ("aws", "gs://bucket", both.format("gs://bucket")),
                ("azure", "s3://bucket", both.format("s3://bucket")), ("aws", "azure://c", both.format("azure://c")),
                ("aws", "file:///srv", both.format("file:///srv")), ("gcp", "https://x.blob.core.windows.net/c",
                                                                     both.format("https://x.blob.core.windows.net/c")),
                ("amazon", "bucket", "CLOUD_PROVIDER is 'amazon', one of aws, azure, gcp expected"),
                ("AWS", "bucket", "CLOUD_PROVIDER is 'AWS', one of aws, azure, gcp expected"),
                ("aws", None, "CLOUD_PROVIDER is set and BUCKET is not\nhint: set BUCKET, too"),
                (None, "bucket", "BUCKET is set and CLOUD_PROVIDER is not\nhint: set CLOUD_PROVIDER, too: aws, azure, gcp"),
                ("azure", "/srv/backups", "BUCKET is '/srv/backups', container/path expected"),
                ("aws", "s3://", "BUCKET: s3:// has no bucket or container"),
                ("aws", "bucket?secret_access_key=hush", "looks like a secret"),
                (None, None, "--to is missing\nhint: or set LUNARK_TO, or CLOUD_PROVIDER and BUCKET, in the environment")):
            env = {"CLOUD_PROVIDER": provider, "BUCKET": bucket, "TMPDIR": self.path("tmp")}
            with self.subTest(provider=provider, bucket=bucket):
                failed = self.backup(status=2, env=env)
                self.assertIn(message, failed.stderr)
                self.assertNotIn("hush", failed.stderr)
                self.assertFalse(os.path.exists(self.path("tmp")))
                if bucket or provider:
                    for verb in (("list",), ("verify",), ("prune", "--keep-last", "1", "--yes")):
                        self.assertIn(message, self.lunark(*verb, status=2, env=env).stderr)
                    self.assertIn(message, self.lunark("restore", "--into", self.path("into"), status=2, env=env).stderr)
        self.assertIn("lunark list: URL is missing", self.lunark("list", status=2).stderr)
        self.assertIn("--from is missing", self.lunark("restore", "--into", self.path("into"), status=2).stderr)
        self.assertFalse(os.path.exists(self.path("into")))


class TokenServer(http.server.BaseHTTPRequestHandler):
    """Gives a token for whatever it is asked with, and keeps that."""

    def do_POST(self):
        asked = self.rfile.read(int(self.headers["content-length"])).decode()
        self.server.asked.append(urllib.parse.parse_qs(asked))
        body = b'{"access_token": "TOKEN", "expires_in": 3600}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


# All of / at another place, with FILE as /credentials/credentials: mounts of its own, which end with it.
CONTAINER = r"""
set -e
mount -t tmpfs none "$1"
for entry in /*; do
    if [ -L "$entry" ]; then cp -P "$entry" "$1"; elif [ -d "$entry" ] && [ "$entry" != /credentials ]; then
        mkdir "$1$entry"; mount --rbind "$entry" "$1$entry"; fi
done
mkdir "$1/credentials" "$1/credentials/..data"
cp "$2" "$1/credentials/..data/credentials"
ln -s ..data/credentials "$1/credentials/credentials"
root=$1
shift 2
exec chroot "$root" "$@"
"""


class CredentialsFile(Places):
    """Backup, list and restore with the file alone: by option, by variable, in the URL, and at its usual place."""

    def each_way(self, file, url, env):
        option = "&" if "?" in url else "?"
        for number, (words, more, text) in enumerate((
                (("--credentials", file), {}, url), ((), {"LUNARK_CREDENTIALS": file}, url),
                ((), {}, f"{url}{option}credentials_file={file}"))):
            how = {**env, **more}
            said = self.backup("--to", text, *words, env=how).stderr
            self.assertIn("n/n-", self.lunark("list", text, *words, env=how).stdout)
            into = self.path(f"into{number}")
            self.lunark("restore", "--from", text, "--into", into, *words, env=how)
            self.assertEqual(describe(self.tree), describe(into + self.tree))
            self.assertNotIn("hush", said)
        self.container(file, url, env)

    def container(self, file, url, env):
        """The same with the file mounted, as a kubelet does it."""
        root = self.path("root")
        os.makedirs(root, exist_ok=True)
        argv = ["unshare", "-m", "--propagation", "private", "sh", "-c", CONTAINER, "sh", root, file, LUNARK, "list", url]
        done = subprocess.run(argv, env=environment(**env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=120, check=False)
        if os.geteuid() != 0 and done.returncode == 1 and "unshare" in done.stderr:
            self.skipTest("mounts need root")
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertIn("n/n-", done.stdout)

    def test_aws(self):
        server = self.s3()
        file = self.write("secret", f"[ default ]\nregion={server.region}\naws_access_key_id={server.access}\n"
                                    f"aws_secret_access_key={server.secret}\n", 0o400)
        env = {"AWS_ENDPOINT_URL": server.endpoint, "AWS_ACCESS_KEY_ID": "wrong", "AWS_SECRET_ACCESS_KEY": "wrong"}
        self.each_way(file, "s3://bucket/p", env)
        self.lunark("list", "s3://bucket/p", env=env, status=3)

    def test_azure(self):
        served = self.serve("azurite").env
        touched = self.path("touched")
        file = self.write("secret", f"export ACCOUNT_NAME={served['AZURE_STORAGE_ACCOUNT']}\nX=$(touch {touched})\n"
                                    f"touch {touched}\nexport ACCOUNT_KEY={served['AZURE_STORAGE_KEY']}\n")
        env = {"AZURE_STORAGE_BLOB_ENDPOINT": served["AZURE_STORAGE_BLOB_ENDPOINT"], "AZURE_STORAGE_KEY": "d3Jvbmc=",
               "AZURE_STORAGE_ACCOUNT": None}
        self.each_way(file, "azure://bucket/p", env)
        self.assertFalse(os.path.exists(touched))
        self.lunark("list", "azure://bucket/p", env={**env, "AZURE_STORAGE_ACCOUNT": "lunarktest"}, status=3)

    def test_gcp(self):
        served = self.serve("fakegcs").env
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), TokenServer)
        server.asked = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(lambda: (server.shutdown(), server.server_close()))
        key = subprocess.run(["openssl", "genrsa", "2048"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
        account = {"type": "service_account", "client_email": "night@p.iam", "private_key": key.stdout.decode(),
                   "private_key_id": "1", "token_uri": f"http://127.0.0.1:{server.server_port}/token"}
        file = self.write("secret", json.dumps(account))
        self.each_way(file, f"gs://bucket/p?endpoint={served['LUNARK_TEST_GCS_URL']}",
                      {"GOOGLE_APPLICATION_CREDENTIALS": "/not/there"})
        self.assertEqual(10, len(server.asked), "a token for each run")
        self.assertIn("assertion", server.asked[0])

    def test_one_that_is_wrong_ends_it_before_anything_is_asked(self):
        aws = self.write("aws", "[default]\naws_access_key_id=hush\naws_secret_access_key=hush\n")
        azure = self.write("azure", "export ACCOUNT_NAME=hush\nexport ACCOUNT_KEY=aHVzaCBodXNo\n")
        other = self.write("other", "hush")
        for url, file, message in (
                ("s3://bucket", azure, "it is Azure's file of variables; [default] with region, aws_access_key_id"),
                ("azure://container", aws, "it is a file of AWS profiles; lines export ACCOUNT_NAME=..."),
                ("gs://bucket", other, "it is in no format that is known here; the JSON of a Google service account"),
                ("s3://bucket", self.path("nowhere"), "no such file")):
            failed = self.backup("--to", url, "--credentials", file, status=2)
            self.assertIn(file + ": " + message, failed.stderr)
            self.assertNotIn("hush", failed.stderr.replace(self.dir, ""))
        # A store that has no use for one takes no notice; and a secret itself stays out of URLs.
        self.backup("--to", self.path("store"), "--credentials", aws)
        self.assertIn("looks like a secret", self.backup("--to", "s3://b?credentials=x", status=2).stderr)


if __name__ == "__main__":
    main()
