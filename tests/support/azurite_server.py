# SPDX-License-Identifier: MIT
"""Azurite, Microsoft's own emulator of Azure Storage, a part of servers.Servers: started, with its containers made.

The child gets LUNARK_TEST_AZURE_URL, AZURE_STORAGE_BLOB_ENDPOINT, AZURE_STORAGE_ACCOUNT, AZURE_STORAGE_KEY, and
LUNARK_TEST_AZURE_SAS, a signature for all that the suites do."""
import base64
import hashlib
import hmac
import os
import subprocess
import time
import urllib.parse
import urllib.request

VERSION, CLIENT = "3.37.0", "12.31.1"
ACCOUNT, KEY = "lunarktest", base64.b64encode(hashlib.sha512(b"lunark's test key").digest()).decode()
API = "2021-12-02"


def sas(permissions, services="b", resources="sco", seconds=3600, key=KEY, account=ACCOUNT):
    """An account SAS of that version: the query."""
    ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
    lines = [account, permissions, services, resources, "", ends, "", "https,http", API, "", ""]
    digest = hmac.new(base64.b64decode(key), "\n".join(lines).encode(), hashlib.sha256).digest()
    return urllib.parse.urlencode({"sv": API, "ss": services, "srt": resources, "sp": permissions, "se": ends,
                                   "spr": "https,http", "sig": base64.b64encode(digest).decode()})


def request(method, url, body=None, headers=None, context=None):
    """One request whose URL carries a SAS; the answer's body."""
    call = urllib.request.Request(url, body, {"x-ms-version": API, **(headers or {})}, method=method)
    with urllib.request.urlopen(call, timeout=30, context=context) as answer:
        return answer.read()


class AzuriteServers:
    def azurite(self, buckets, tls=None):
        """Starts it with these containers; its port. tls: (certificate, key) as files, then it takes tokens."""
        program = os.path.join(self.cache, f"azurite-{VERSION}", "node_modules", ".bin", "azurite-blob")
        self.need(program, f"azurite {VERSION}")
        port, data = self.port(self.host), os.path.join(self.scratch, "azurite")
        os.makedirs(data, exist_ok=True)
        argv = [program, "--blobHost", self.host, "--blobPort", str(port), "-l", data, "-s", "--disableTelemetry",
                "--skipApiVersionCheck"]
        scheme, context = "http", None
        if tls:
            import ssl
            scheme, context = "https", ssl._create_unverified_context()  # only for making the containers, on loopback
            argv += ["--oauth", "basic", "--cert", tls[0], "--key", tls[1]]
        # It asks itself for the source of a copy.
        trusted = {"NODE_EXTRA_CA_CERTS": self.env["LUNARK_TEST_CA"]} if tls else {}
        child = self.start(argv, "azurite", env=dict(self.clean(), AZURITE_ACCOUNTS=f"{ACCOUNT}:{KEY}", **trusted))
        self.wait_for(port, child, "azurite")
        url = f"{scheme}://{self.host}:{port}/{ACCOUNT}"
        token = sas("rwdlacu")
        for bucket in buckets:
            request("PUT", f"{url}/{bucket}?restype=container&{token}", b"", context=context)
        self.env.update(LUNARK_TEST_AZURE_URL=url, AZURE_STORAGE_BLOB_ENDPOINT=url, AZURE_STORAGE_ACCOUNT=ACCOUNT,
                        AZURE_STORAGE_KEY=KEY, LUNARK_TEST_AZURE_SAS=token)
        return port

    def azure_client(self, program, *arguments, container="lunark-test"):
        """What a program with Microsoft's own client prints; `container` is there for it."""
        python = os.path.join(self.cache, f"azure-storage-blob-{CLIENT}", "bin", "python")
        self.need(python, f"azure-storage-blob {CLIENT}")
        opening = ("import datetime, hashlib, json, os, sys\nfrom azure.storage import blob\n"
                   "service = blob.BlobServiceClient(os.environ['LUNARK_TEST_AZURE_URL'], os.environ['AZURE_STORAGE_KEY'])\n"
                   f"container = service.get_container_client('{container}')\n")
        return subprocess.run([python, "-c", opening + program, *arguments], env=self.env, check=True, timeout=300,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE).stdout
