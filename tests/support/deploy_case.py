# SPDX-License-Identifier: MIT
"""What tests of deploy/ share: the chart rendered by helm, and checked against the schemas of Kubernetes."""
import json
import os
import subprocess
import tempfile
import unittest

from harness import ROOT
from neo4j_case import Neo4jCase
from servers import CACHE, Unavailable, make_available

CHART = os.path.join(ROOT, "deploy", "helm", "neo4j-backup")
HELM = os.path.join(CACHE, "helm-4.3.1", "helm")
VALIDATE = os.path.join(CACHE, "kubernetes-validate-1.37.0", "bin", "kubernetes-validate")
KUBERNETES = ("1.26", "1.37")  # the first one that the chart is for, and the last
# Of the environment that has the schemas: it reads YAML.
READ = "import json, sys, yaml; json.dump(list(yaml.safe_load_all(sys.stdin)), sys.stdout)"


class DeployCase(Neo4jCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        try:
            make_available(VALIDATE, "kubernetes-validate")
            make_available(HELM, "helm")
        except Unavailable as reason:
            raise unittest.SkipTest(str(reason)) from reason

    def helm_env(self):
        """helm keeps to the scratch folder, and knows no cluster."""
        env = {k: v for k, v in os.environ.items() if not k.startswith(("HELM_", "KUBE"))}
        return {**env, "HOME": self.dir, "XDG_CACHE_HOME": self.dir, "XDG_CONFIG_HOME": self.dir, "XDG_DATA_HOME": self.dir}

    @staticmethod
    def sets(values):
        return [word for name, value in values.items() for word in ("--set-json", f"{name}={json.dumps(value)}")]

    def template(self, values, sets, release, *more):
        with tempfile.NamedTemporaryFile("w", suffix=".json", dir=self.dir) as file:
            json.dump(values or {}, file)
            file.flush()
            words = [word for one in sets or () for word in ("--set", one)]
            return subprocess.run([HELM, *more, release, CHART, "--values", file.name, *words], env=self.helm_env(), text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)

    def render(self, values=None, release="my", sets=None):
        """The cron job, after Kubernetes' schemas have nothing against it."""
        out = self.template(values, sets, release, "template")
        self.assertEqual(0, out.returncode, out.stderr)
        for release_of in KUBERNETES:
            checked = subprocess.run([VALIDATE, "--strict", "-k", release_of, "-"], input=out.stdout, text=True,
                                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
            self.assertEqual(0, checked.returncode, checked.stdout + out.stdout)
            self.assertIn(f"passed for resource cronjob/{release}-job", checked.stdout)
        (job,) = [document for document in self.read_yaml(out.stdout) if document]
        self.assertEqual(("batch/v1", "CronJob"), (job["apiVersion"], job["kind"]))
        return job

    @staticmethod
    def read_yaml(text):
        """The documents of a text."""
        read = subprocess.run([os.path.join(os.path.dirname(VALIDATE), "python"), "-c", READ], input=text, text=True,
                              stdout=subprocess.PIPE, check=True)
        return json.loads(read.stdout)

    def refused(self, values, message, release="my"):
        out = self.template(values, None, release, "template")
        self.assertNotEqual(0, out.returncode, out.stdout)
        self.assertIn(message, out.stderr)

    def notes(self, values, release="my"):
        out = self.template(values, None, release, "install", "--dry-run=client")
        self.assertEqual(0, out.returncode, out.stderr)
        return out.stdout[out.stdout.index("NOTES:"):]

    @staticmethod
    def pod(job):
        return job["spec"]["jobTemplate"]["spec"]["template"]["spec"]

    def container(self, job):
        return self.pod(job)["containers"][0]

    def environment(self, job):
        """All variables of the container, each there once and as text."""
        entries = self.container(job)["env"]
        self.assertEqual(len(entries), len({e["name"] for e in entries}))
        return {e["name"]: e["value"] for e in entries}

    def volume(self, job, name):
        found = [v for v in self.pod(job)["volumes"] if v["name"] == name]
        return found[0] if found else None
