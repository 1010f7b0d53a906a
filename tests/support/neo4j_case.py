# SPDX-License-Identifier: MIT
"""What tests of the neo4j policy share: the stand-in for neo4j-admin, a port that answers, and a store on disk."""
import glob
import json
import os
import socket
import tarfile

from harness import ROOT, Case, environment, load_json


def refusing_port():
    """A port of the loopback that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Neo4jCase(Case):
    version = "4.4.10"

    def setUp(self):
        super().setUp()
        os.mkdir(self.path("bin"))
        os.symlink(os.path.join(ROOT, "tests", "support", "neo4j-admin"), self.path("bin", "neo4j-admin"))
        self.store, self.work, self.log = self.path("store"), self.path("work"), self.path("log")
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        self.address = f"127.0.0.1:{listener.getsockname()[1]}"

    def args(self, *more, database="neo4j,system", address=None):
        return ["backup", "neo4j", "--address", address or self.address, "--database", database, "--to", self.store,
                "--work-dir", self.work, *more]

    def env(self, **more):
        return {"PATH": self.path("bin") + ":" + environment()["PATH"], "NEO4J_TEST_LOG": self.log,
                "NEO4J_TEST_VERSION": self.version, **more}

    def backup(self, *more, status=0, database="neo4j,system", address=None, **env):
        return self.lunark(*self.args(*more, database=database, address=address), status=status, env=self.env(**env))

    def calls(self):
        if not os.path.exists(self.log):
            return []
        with open(self.log, encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def databases(self):
        """The databases of all calls, in their order."""
        return [a.split("=")[1] for c in self.calls() for a in c["argv"] if a.startswith("--database=")]

    def archives(self, database, suffix=".tar.gz"):
        return sorted(p for p in glob.glob(f"{self.store}/{database}/{database}-2*{suffix}") if ".report." not in p)

    def objects(self):
        """Keys of all that is stored, with the time as TIME."""
        stamps, found = set(), []
        for folder, _, files in os.walk(self.store):
            for name in files:
                if name.startswith("."):  # metadata of the local store
                    continue
                key = os.path.relpath(os.path.join(folder, name), self.store)
                database = key.split("/")[0]
                rest = name[len(database) + 1:]
                if not rest.startswith("latest"):
                    stamps.add(rest[:19])
                    key = f"{database}/{database}-TIME{rest[19:]}"
                found.append(key)
        self.assertLessEqual(len(stamps), 1, "one time for all items of a run")
        return sorted(found)

    def left(self, folder):
        """What is in a folder of backups."""
        return [name for name in os.listdir(folder) if name != ".lunark-lock"]

    def names(self, archive):
        with tarfile.open(archive) as tar:
            return tar.getnames()

    def manifest(self, archive):
        return load_json(archive.replace(".tar.gz", ".manifest.json").replace(".dump.gz", ".manifest.json"))
