# SPDX-License-Identifier: MIT
"""lunark backup and restore neo4j with real Neo4j Community 4.4 and 5.26: a database is dumped, stored, restored and queried."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import Case, environment, load_json, main  # noqa: E402
from neo4j_server import Neo4j  # noqa: E402

FILL = "UNWIND range(1, 20000) AS i CREATE (:N {i: i, text: 'number ' + i})-[:NEXT]->(:M {i: i})"
ASK = "MATCH (n:N)-[:NEXT]->(m:M) WHERE n.i = m.i RETURN count(n), sum(n.i), max(n.text)"
ROWS = [[20000, 200010000, "number 9999"]]


class Real(Case):
    def dumped(self, version):
        server = Neo4j(version, self.path("home"))
        self.addCleanup(server.stop)
        store = self.path("store")
        env = {"PATH": server.bin + ":" + environment()["PATH"]}
        backup = ["backup", "neo4j", "--method", "dump", "--database", "neo4j,system", "--to", store]
        server.start()
        server.query(FILL)
        failed = self.lunark(*backup, env=env, status=1)
        self.assertIn("The database is in use", failed.stderr)
        self.assertFalse(os.path.exists(store + "/neo4j/neo4j-latest.dump.gz"))
        server.stop()
        refused = self.lunark("backup", "neo4j", "--address", "127.0.0.1", "--database", "neo4j", "--to", store, env=env,
                              status=1)
        self.assertIn("the Community Edition can't back up a running server", refused.stderr)
        self.lunark(*backup, "--heap-size", "300m", env=env)
        manifest = [n for n in os.listdir(store + "/neo4j") if n.endswith(".manifest.json") and n[0] != "."]
        self.assertEqual(version, load_json(f"{store}/neo4j/{manifest[0]}")["details"]["neo4j_version"])
        other = Neo4j(version, self.path("other"))
        self.addCleanup(other.stop)
        env = {"PATH": other.bin + ":" + environment()["PATH"]}
        restore = ["restore", "neo4j", "--from", store, "--database", "neo4j,system", "--data-dir", other.home + "/data",
                   "--heap-size", "300m"]
        self.lunark(*restore, env=env)
        other.start()
        self.assertEqual(ROWS, other.query(ASK))
        used = self.lunark(*restore, "--force", env=env, status=1)
        self.assertIn("neo4j: a server has this database in use", used.stderr)
        other.query("MATCH (n) DETACH DELETE n")
        other.stop()
        self.assertIn("there is such a database", self.lunark(*restore, env=env, status=1).stderr)
        self.lunark(*restore, "--force", env=env)
        self.assertIn("nothing is done", self.lunark(*restore, "--force", "--once", env=env).stderr)
        other.start()
        self.assertEqual(ROWS, other.query(ASK))

    def test_4(self):
        self.dumped("4.4.40")

    def test_5(self):
        self.dumped("5.26.0")


if __name__ == "__main__":
    main()
