# SPDX-License-Identifier: MIT
"""Real Neo4j Community servers on the loopback, and their neo4j-admin, from what tools.sh fetched."""
import json
import os
import shutil
import signal
import subprocess
import time
import unittest
import urllib.error
import urllib.request

from servers import CACHE, free_port

OPENS = [word for name in ("nio", "lang") for word in ("--add-opens", f"java.base/java.{name}=ALL-UNNAMED")]
OPENS += ["--add-opens", "java.base/sun.nio.ch=ALL-UNNAMED"]
START = 120  # seconds


class Neo4j:
    """A home folder with its databases, a server on it from time to time, and a neo4j-admin for it."""

    def __init__(self, version, home):
        self.jars = os.path.join(CACHE, f"neo4j-{version}", "lib")
        if not os.path.exists(os.path.join(CACHE, f"neo4j-{version}", "complete")):
            raise unittest.SkipTest(f"no Neo4j {version} here (tests/support/tools.sh)")
        if not shutil.which("java"):
            raise unittest.SkipTest("no java here")
        self.home, self.child = home, None
        self.http = free_port()
        for name in ("conf", "data", "logs", "import", "plugins", "bin"):
            os.makedirs(os.path.join(home, name), exist_ok=True)
        old = version.startswith("4.")
        connector, server = ("dbms.connector", "dbms") if old else ("server", "server")
        settings = [f"{server}.default_listen_address=127.0.0.1", f"{connector}.bolt.enabled=false",
                    f"{connector}.http.listen_address=127.0.0.1:{self.http}", "dbms.security.auth_enabled=false"]
        settings += ["dbms.memory.pagecache.size=32m"] if old else ["server.memory.pagecache.size=32m",
                                                                    "dbms.usage_report.enabled=false"]
        with open(os.path.join(home, "conf", "neo4j.conf"), "w", encoding="utf-8") as file:
            file.write("\n".join(settings) + "\n")
        admin = os.path.join(home, "bin", "neo4j-admin")
        with open(admin, "w", encoding="utf-8") as file:
            file.write(f"#!/bin/sh\nexport NEO4J_HOME={home} NEO4J_CONF={home}/conf\n"
                       f"exec java ${{HEAP_SIZE:+-Xmx$HEAP_SIZE}} -XX:TieredStopAtLevel=1 -cp '{self.jars}/*' "
                       f"{' '.join(OPENS)} -Dapp.name=neo4j -Dbasedir={home} org.neo4j.cli.AdminTool \"$@\"\n")
        os.chmod(admin, 0o755)
        self.bin, self.admin = os.path.dirname(admin), admin

    def start(self):
        with open(os.path.join(self.home, "server.log"), "wb") as out:
            self.child = subprocess.Popen(
                ["java", "-Xmx400m", "-XX:TieredStopAtLevel=1", "-cp", self.jars + "/*", *OPENS,
                 "org.neo4j.server.CommunityEntryPoint", f"--home-dir={self.home}", f"--config-dir={self.home}/conf"],
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + START
        while True:
            try:
                self.query("RETURN 1")
                return
            except (OSError, urllib.error.URLError):
                if self.child.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    with open(os.path.join(self.home, "server.log"), encoding="utf-8", errors="replace") as log:
                        raise AssertionError("neo4j did not start:\n" + log.read()[-3000:]) from None
                time.sleep(0.2)

    def query(self, statement):
        """Rows of a Cypher statement."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}/db/neo4j/tx/commit",
                                         json.dumps({"statements": [{"statement": statement}]}).encode(),
                                         {"content-type": "application/json", "accept": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)
        if found["errors"]:
            raise AssertionError(found["errors"])
        return [row["row"] for row in found["results"][0]["data"]]

    def stop(self):
        if self.child and self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(60)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        self.child = None
