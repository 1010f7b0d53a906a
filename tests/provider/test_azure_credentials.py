#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Backups to Azure Blob with the credentials that people already have: keys, signatures and connection strings that
Azurite checks, and tokens of a service that checks what it is asked, which Azurite takes over TLS; expiry and swapped
files in the middle of an upload; proxies."""
import os
import ssl
import subprocess
import sys
import tempfile
import shutil
import xml.etree.ElementTree as xml

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "support"))

import azurite_server  # noqa: E402
import harness  # noqa: E402
import servers  # noqa: E402
from azure_server import APP, AUTHORITY, CLIENT, HEADER, MACHINE, SECRET, TENANT, AzureServer  # noqa: E402

ACCOUNT, KEY = azurite_server.ACCOUNT, azurite_server.KEY
# Whoever asks this one for metadata has made a mistake.
PROXY = "http://127.0.0.1:1"
WRONG = "d3Jvbmcga2V5"


class Case(harness.Case):
    """Azurite with TLS, which takes tokens, for all tests of a class; a service that hands tokens out."""

    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.mkdtemp(prefix="lunark-azure.")
        cls.addClassCleanup(shutil.rmtree, cls.scratch, True)
        cls.servers = servers.Servers(cls.scratch)
        cls.addClassCleanup(cls.servers.stop)
        tls = cls.servers.certificates()[1::2]
        cls.servers.azurite(["bucket"], tls)
        cls.endpoint, cls.ca = cls.servers.env["LUNARK_TEST_AZURE_URL"], cls.servers.env["LUNARK_TEST_CA"]

    def setUp(self):
        super().setUp()
        self.service = AzureServer()
        self.addCleanup(self.service.close)
        self.write("tree/file", b"content")
        self.prefix = self.id().rsplit(".", 1)[-1]

    def environment(self, **more):
        names = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
        return {"AZURE_STORAGE_BLOB_ENDPOINT": self.endpoint, "SSL_CERT_FILE": self.ca,
                **dict.fromkeys([*names, *(name.upper() for name in names)]), **more}

    def backup(self, status=0, query="", tree="tree", **env):
        return self.lunark("backup", "files", self.path(tree), "--name", "n", "--to",
                           f"azure://bucket/{self.prefix}{query}", status=status, env=self.environment(**env))

    def stored(self, what="&include=uncommittedblobs"):
        url = f"{self.endpoint}/bucket?restype=container&comp=list&prefix={self.prefix}/{what}"
        listed = xml.fromstring(azurite_server.request(
            "GET", f"{url}&{azurite_server.sas('rl')}", context=ssl.create_default_context(cafile=self.ca)))
        return [name.text for name in listed.iter("Name")]

    def conformance(self, **env):
        """The conformance suite with these credentials."""
        env = {**self.environment(**env), "LUNARK_TEST_STORE": f"azure://bucket/{self.prefix}",
               "LUNARK_TEST_WRONG": "account_key=" + WRONG}
        child = subprocess.run([os.path.join(harness.BUILD, "luarun"), "tests/lua/run.lua",
                                "tests/provider/conformance.lua"], cwd=ROOT, env=harness.environment(**env), timeout=120,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        self.assertEqual(0, child.returncode, child.stdout.decode())

    def assert_stored(self):
        self.assertEqual(3, len(self.stored()), "the archive, its manifest, latest")


class Keys(Case):
    def test_account_key(self):
        for name in ("AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY", "ACCOUNT_KEY"):
            self.backup(**{name: KEY})
        self.assertEqual(7, len(self.stored()))

    def test_account_in_the_name_of_the_host(self):
        """The two ways to write it, as the service has it: https://ACCOUNT.blob.SUFFIX."""
        port = self.endpoint.rsplit(":", 1)[1].split("/")[0]
        base = f"https://{ACCOUNT}.blob.localhost:{port}"
        env = self.environment(AZURE_STORAGE_KEY=KEY, AZURE_STORAGE_BLOB_ENDPOINT=None)
        for url in (f"{base}/bucket/{self.prefix}/a%20b", f"azure://bucket/{self.prefix}/a%20b?endpoint={base}"):
            self.lunark("backup", "files", self.path("tree"), "--name", "n", "--to", url, env=env)
            self.assertIn("n", self.lunark("list", url, env=env).stdout)
        self.assertEqual({f"{self.prefix}/a b/n"}, {os.path.dirname(key) for key in self.stored()})
        env["AZURE_STORAGE_ACCOUNT"] = "another"
        self.lunark("list", f"{base}/bucket/{self.prefix}/a%20b", env=env)

    def test_account_key_in_a_file(self):
        self.backup(AZURE_STORAGE_KEY_FILE=self.write("key", KEY + "\n"))
        self.assert_stored()

    def test_wrong_key(self):
        failed = self.backup(AZURE_STORAGE_KEY=WRONG, status=3)
        self.assertRegex(failed.stderr, r"\nhint: check the account's name, the key or token.*; "
                         r"the credentials are from the environment \(AZURE_STORAGE_KEY\)")
        self.assertNotIn(WRONG, failed.stderr)
        failed = self.backup(AZURE_STORAGE_KEY="no base64", status=3)
        self.assertIn("AZURE_STORAGE_KEY: an account key is base64 text", failed.stderr)
        self.assertNotIn("no base64", failed.stderr)

    def test_account_signature(self):
        env = {"AZURE_STORAGE_SAS_TOKEN": azurite_server.sas("rwdlac", resources="co")}
        self.backup(**env)
        self.assert_stored()
        listed = self.lunark("list", f"azure://bucket/{self.prefix}", env=self.environment(**env))
        self.assertIn("n", listed.stdout)

    def test_all_that_a_store_does(self):
        self.conformance(AZURE_STORAGE_SAS_TOKEN=azurite_server.sas("rwdlac", resources="co"))

    def test_signature_that_may_only_write(self):
        done = self.backup(AZURE_STORAGE_SAS_TOKEN="?" + azurite_server.sas("wc", resources="co"), status=1)
        self.assertIn("latest not moved", done.stderr)
        self.assertIn("these credentials may not do this", done.stderr)
        self.assertEqual(2, len(self.stored()))

    def test_signature_that_has_ended(self):
        ended = azurite_server.sas("rwdlac", resources="co", seconds=-60)
        failed = self.backup(AZURE_STORAGE_SAS_TOKEN=ended, status=3)
        self.assertIn("has expired: make a new one; the credentials are from the environment (AZURE_STORAGE_SAS_TOKEN)", failed.stderr)
        self.assertNotIn(ended[-20:], failed.stderr)
        # In a file it may have been swapped.
        path = self.write("sas", ended)
        self.backup(AZURE_STORAGE_SAS_TOKEN_FILE=path, status=3)
        self.write("sas", azurite_server.sas("rwdlac", resources="co"))
        self.backup(AZURE_STORAGE_SAS_TOKEN_FILE=path)
        self.assert_stored()

    def test_signature_is_swapped_in_mid_upload(self):
        path = self.write("sas", azurite_server.sas("rwdlac", resources="co", seconds=3))
        self.write("big/noise", os.urandom(24 << 20))
        child = self.start("backup", "files", self.path("big"), "--name", "n", "--to", f"azure://bucket/{self.prefix}",
                           "--limit-rate", "6M", env=self.environment(AZURE_STORAGE_SAS_TOKEN_FILE=path))
        try:
            child.wait(1)
        except subprocess.TimeoutExpired:
            self.write("sas", azurite_server.sas("rwdlac", resources="co"))
        _, err = child.communicate(timeout=60)
        self.assertEqual(0, child.returncode, err.decode())
        self.assert_stored()

    def test_connection_string(self):
        key = f"DefaultEndpointsProtocol=https;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={self.endpoint};"
        sas = f"BlobEndpoint={self.endpoint}/;SharedAccessSignature={azurite_server.sas('rwdlac', resources='co')}"
        for text in (key, sas):
            self.backup(AZURE_STORAGE_CONNECTION_STRING=text, AZURE_STORAGE_BLOB_ENDPOINT=None)
        self.assertEqual(5, len(self.stored()))
        failed = self.backup(AZURE_STORAGE_CONNECTION_STRING=key.replace(KEY, WRONG), status=3)
        self.assertIn("(AZURE_STORAGE_CONNECTION_STRING)", failed.stderr)
        for text in ("AccountName=x", "words"):
            failed = self.backup(AZURE_STORAGE_CONNECTION_STRING=text, status=3)
            self.assertIn("copy it from the account's access keys", failed.stderr)

    def test_file_beside_a_job(self):
        path = self.write("credentials", f"export ACCOUNT_NAME={ACCOUNT}\nexport ACCOUNT_KEY='{KEY}'\n")
        self.backup(query=f"?credentials_file={path}", AZURE_STORAGE_KEY=WRONG)
        self.assert_stored()
        self.write("credentials", "export ACCOUNT_KEY=$(touch here)\n")
        failed = self.backup(query=f"?credentials_file={path}", status=3)
        self.assertIn(path, failed.stderr)
        self.assertFalse(os.path.exists("here"))

    def test_account_of_another(self):
        text = f"AccountName=other;AccountKey={KEY}"
        failed = self.backup(query="?account=lunarktest", AZURE_STORAGE_CONNECTION_STRING=text, status=2)
        self.assertIn("account lunarktest is asked for", failed.stderr)


class Tokens(Case):
    def client(self, **more):
        return {"AZURE_AUTHORITY_HOST": self.service.url, "AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_ID": CLIENT, **more}

    def machine(self, **more):
        return {"AZURE_POD_IDENTITY_AUTHORITY_HOST": self.service.url, **more}

    def test_client_secret(self):
        self.backup(**self.client(AZURE_CLIENT_SECRET=SECRET))
        self.assert_stored()
        self.assertEqual([AUTHORITY], [one["path"] for one in self.service.asked])
        self.backup(**self.client(AZURE_CLIENT_SECRET_FILE=self.write("secret", SECRET + "\n")))
        self.assertEqual(2, len(self.service.given))

    def test_client_secret_that_is_refused(self):
        failed = self.backup(**self.client(AZURE_CLIENT_SECRET="wrong~secret"), status=3)
        self.assertIn("AADSTS7000215: Invalid client secret provided", failed.stderr)
        self.assertNotIn("Trace ID", failed.stderr)
        self.assertIn("AZURE_TENANT_ID, AZURE_CLIENT_ID and the credentials", failed.stderr)
        self.assertNotIn("wrong~secret", failed.stderr)
        failed = self.backup(**self.client(AZURE_CLIENT_SECRET=SECRET, AZURE_TENANT_ID=None), status=3)
        self.assertIn("AZURE_CLIENT_SECRET is set and AZURE_TENANT_ID is not", failed.stderr)
        failed = self.backup(**self.client(AZURE_CLIENT_SECRET=SECRET, AZURE_AUTHORITY_HOST="http://login.example"), status=3)
        self.assertIn("AZURE_AUTHORITY_HOST 'http://login.example': https://host expected", failed.stderr)

    def mount(self, text):
        """What a kubelet does: another directory, and a link that is renamed over the old one."""
        self.service.assertion = text
        self.write(f"mount/..{text}/token", text)
        new, data = self.path("mount", "..new"), self.path("mount", "..data")
        os.symlink(f"..{text}", new)
        os.rename(new, data)
        if not os.path.islink(self.path("mount", "token")):
            os.symlink("..data/token", self.path("mount", "token"))
        return self.client(AZURE_FEDERATED_TOKEN_FILE=self.path("mount", "token"))

    def test_workload_identity(self):
        self.backup(**self.mount("jwt.one"))
        self.assert_stored()
        env = self.mount("jwt.two")
        self.service.assertion = "jwt.of.another"
        failed = self.backup(**env, status=3)
        self.assertNotIn("jwt.two", failed.stderr)

    def slow(self, env, **then):
        """A backup that takes four seconds; `then` is called after its first token."""
        self.write("big/noise", os.urandom(24 << 20))
        child = self.start("backup", "files", self.path("big"), "--name", "n", "--to", f"azure://bucket/{self.prefix}",
                           "--limit-rate", "6M", env=self.environment(**env))
        while not self.service.given:
            self.assertIsNone(child.poll(), "ended early")
            try:
                child.wait(0.05)
            except subprocess.TimeoutExpired:
                pass
        then["then"]()
        _, err = child.communicate(timeout=60)
        return child.returncode, err.decode()

    def test_renewed_in_mid_upload(self):
        env = self.mount("jwt.one")
        self.service.seconds = 2
        status, err = self.slow(env, then=lambda: self.mount("jwt.two"))
        self.assertEqual(0, status, err)
        self.assert_stored()
        self.assertGreaterEqual(len(self.service.given), 3)
        self.assertNotIn("could not be renewed", err)

    def test_not_to_be_renewed_in_mid_upload(self):
        env = self.mount("jwt.one")
        self.service.seconds = 1

        def refuse():
            self.service.assertion = "jwt.nobody.has"
        status, err = self.slow(env, then=refuse)
        self.assertIn(status, (1, 3), err)
        self.assertIn("Entra ID refuses the workload identity", err)
        self.assertEqual([], self.stored(""))

    def test_machine(self):
        self.backup(**self.machine())
        self.assert_stored()
        self.assertEqual([MACHINE], [one["path"] for one in self.service.asked])
        self.service.client = CLIENT
        self.backup(**self.machine(AZURE_CLIENT_ID=CLIENT))
        failed = self.backup(**self.machine(), status=3)
        self.assertIn("Identity not found", failed.stderr)
        self.assertIn("assign an identity, or set AZURE_CLIENT_ID", failed.stderr)

    def test_machine_that_is_busy(self):
        self.service.faults = [(429, {"retry-after": "1"}), (404, {}), (500, {}), (503, {})]
        self.backup(**self.machine())
        self.assertEqual(5, len(self.service.asked))

    def test_no_machine(self):
        failed = self.backup(AZURE_POD_IDENTITY_AUTHORITY_HOST="http://127.0.0.1:1", status=3)
        self.assertIn("there are no Azure credentials, and no managed identity", failed.stderr)
        self.assertIn("set AZURE_STORAGE_KEY", failed.stderr)

    def test_app_service(self):
        env = {"IDENTITY_ENDPOINT": self.service.url + APP, "IDENTITY_HEADER": HEADER}
        self.backup(**env)
        self.assert_stored()
        failed = self.backup(**{**env, "IDENTITY_HEADER": "wrong-header"}, status=3)
        self.assertNotIn("wrong-header", failed.stderr)

    def test_no_proxy_for_metadata(self):
        self.backup(**self.machine(http_proxy=PROXY))
        self.backup(IDENTITY_ENDPOINT=self.service.url + APP, IDENTITY_HEADER=HEADER, http_proxy=PROXY)
        self.assertEqual(2, len(self.service.given))
        # What is no metadata goes by the proxy, which is not there.
        self.backup(**self.client(AZURE_CLIENT_SECRET=SECRET, http_proxy=PROXY), status=3)
        self.assertEqual(2, len(self.service.given))

    def test_token_that_ends_early(self):
        self.service.really = 2
        status, err = self.slow(self.machine(), then=lambda: None)
        self.assertEqual(0, status, err)
        self.assert_stored()
        self.assertGreaterEqual(len(self.service.given), 2)

    def test_token_that_the_store_refuses(self):
        self.service.seconds = -60
        failed = self.backup(**self.machine(), status=3)
        self.assertIn("the credentials are from the machine's managed identity", failed.stderr)
        for token in self.service.given:
            self.assertNotIn(token, failed.stderr)

    def test_all_that_a_store_does(self):
        self.conformance(**self.machine())

    def test_no_token_in_the_clear(self):
        env = self.machine(AZURE_STORAGE_BLOB_ENDPOINT="http://blobs.example:1/lunarktest")
        failed = self.backup(**env, status=2)
        self.assertIn("a token is sent over https only", failed.stderr)
        self.assertEqual([], self.service.asked)


if __name__ == "__main__":
    harness.main()
