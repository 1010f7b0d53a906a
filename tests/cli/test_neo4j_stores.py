# SPDX-License-Identifier: MIT
"""lunark backup and restore neo4j as the Labs chart starts them, from the environment alone, with each kind of store: the
keys are those of its documentation."""
import json
import os
import re
import sys
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import main  # noqa: E402
from neo4j_case import Neo4jCase  # noqa: E402

STAMP = r"\d{4}-\d\d-\d\d-\d\d:\d\d:\d\d"


class Chart(Neo4jCase):
    def run_chart(self, provider, bucket, env, **more):
        """What the container's environment says, and a folder for the backups."""
        base = self.path("backups")
        return self.lunark("backup", "neo4j", "--backup-dir", base, env=self.env(
            NEO4J_ADDR=self.address, DATABASE="neo4j, system", CLOUD_PROVIDER=provider, BUCKET=bucket, HEAP_SIZE="2G",
            PAGE_CACHE="2G", FALLBACK_TO_FULL="true", CHECK_CONSISTENCY="true", CHECK_INDEXES="true", CHECK_GRAPH="true",
            CHECK_LABEL_SCAN_STORE="true", CHECK_PROPERTY_OWNERS="false", REMOVE_EXISTING_FILES="true",
            REMOVE_BACKUP_FILES="true", TMPDIR=self.path(), **{k: v for k, v in env.items() if k != "PATH"}, **more))

    def restore_chart(self, provider, bucket, env):
        """What the container of the restore has in its environment."""
        os.mkdir(self.path("data"))
        self.lunark("restore", "neo4j", "--data-dir", self.path("data"), env=self.env(
            DATABASE="neo4j,system", CLOUD_PROVIDER=provider, BUCKET=bucket, TIMESTAMP="latest", FORCE_OVERWRITE="true",
            PURGE_ON_COMPLETE="true", TMPDIR=self.path(), **{k: v for k, v in env.items() if k != "PATH"}))
        for database in ("neo4j", "system"):
            self.assertEqual(100000, os.path.getsize(self.path("data/databases", database, "neostore")))

    def check(self, keys, prefix=""):
        stamps = set(re.findall(STAMP, "\n".join(keys)))
        self.assertEqual(1, len(stamps), keys)
        (stamp,) = stamps
        self.assertEqual(sorted(f"{prefix}{d}/{d}-{rest}" for d in ("neo4j", "system") for rest in (
            f"{stamp}.tar.gz", "latest.tar.gz", f"{stamp}.report.tar.gz", f"{stamp}.manifest.json")), sorted(keys))
        self.assertEqual([], self.left(self.path("backups")))

    def test_local(self):
        self.lunark("backup", "neo4j", "--backup-dir", self.path("backups"), env=self.env(
            NEO4J_ADDR=self.address, DATABASE="neo4j,system", LUNARK_TO=self.store))
        found = [os.path.relpath(os.path.join(folder, name), self.store) for folder, _, names in os.walk(self.store)
                 for name in names if name[0] != "."]
        self.check(found)

    def test_s3(self):
        server = self.s3()
        env = dict(server.env(), AWS_ENDPOINT_URL=server.endpoint, AWS_REGION=server.region)
        self.run_chart("aws", "s3://bucket/", env)
        self.check(server.objects("bucket"))
        self.run_chart("aws", "s3://bucket/some/where/", env)
        self.check([key for key in server.objects("bucket") if key.startswith("some")], "some/where/")
        self.assertEqual([], list(server.uploads("bucket")))
        self.restore_chart("aws", "s3://bucket", env)

    def test_gcs(self):
        env = self.serve("fakegcs").env
        self.run_chart("gcp", "gs://bucket/", env)
        with urllib.request.urlopen(env["LUNARK_TEST_GCS_URL"] + "/storage/v1/b/bucket/o", timeout=30) as answer:
            self.check([item["name"] for item in json.load(answer)["items"]])
        self.restore_chart("gcp", "gs://bucket/", env)

    def test_azure(self):
        env = self.serve("azurite").env
        self.run_chart("azure", "bucket/path/to/directory", env)
        url = f"{env['LUNARK_TEST_AZURE_URL']}/bucket?restype=container&comp=list&{env['LUNARK_TEST_AZURE_SAS']}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            self.check(re.findall("<Name>([^<]*)</Name>", answer.read().decode()), "path/to/directory/")
        self.restore_chart("azure", "bucket/path/to/directory", env)

    def test_azure_again(self):
        env = self.serve("azurite").env
        self.run_chart("azure", "bucket", env)
        self.run_chart("azure", "bucket", env, NEO4J_TEST_BYTES="5000")
        self.lunark("restore", "--from", "azure://bucket", "--item", "neo4j", "--at", "latest", "--into", self.path("into"),
                    env=env)
        self.assertEqual(5000, os.path.getsize(self.path("into/backups/neo4j/neostore")), "latest was replaced")


if __name__ == "__main__":
    main()
