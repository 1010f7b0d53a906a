# SPDX-License-Identifier: MIT
"""The Helm chart: rendered with the Labs chart's values and more, checked against the schemas of Kubernetes; the pod's
command run as a process with the rendered environment."""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from deploy_case import CHART, HELM, DeployCase  # noqa: E402
from harness import ROOT, main  # noqa: E402

REQUIRED = {"neo4jaddr": "my-neo4j.default.svc.cluster.local:6362", "bucket": "s3://my-bucket", "cloudProvider": "aws",
            "secretName": "neo4j-aws-credentials"}
ENV = {
    "NEO4J_ADDR": "my-neo4j.default.svc.cluster.local:6362", "DATABASE": "neo4j,system", "CLOUD_PROVIDER": "aws",
    "BUCKET": "s3://my-bucket", "HEAP_SIZE": "2G", "PAGE_CACHE": "2G", "FALLBACK_TO_FULL": "true",
    "CHECK_CONSISTENCY": "true", "CHECK_INDEXES": "true", "CHECK_GRAPH": "true", "CHECK_LABEL_SCAN_STORE": "true",
    "CHECK_PROPERTY_OWNERS": "false", "REMOVE_EXISTING_FILES": "true", "REMOVE_BACKUP_FILES": "true",
    "LUNARK_CREDENTIALS": "/credentials/credentials", "LUNARK_LOG_FORMAT": "json", "LUNARK_LOG_LEVEL": "info",
}
BOOLEANS = {
    "fallbackToFull": "FALLBACK_TO_FULL", "checkConsistency": "CHECK_CONSISTENCY", "checkIndexes": "CHECK_INDEXES",
    "checkGraph": "CHECK_GRAPH", "checkLabelScanStore": "CHECK_LABEL_SCAN_STORE",
    "checkPropertyOwners": "CHECK_PROPERTY_OWNERS", "removeExistingFiles": "REMOVE_EXISTING_FILES",
    "removeBackupFiles": "REMOVE_BACKUP_FILES",
}
FLAGS = {"checkIndexStructure": "--check-index-structure", "prepareRestore": "--prepare-restore", "keepFailed": "--keep-failed",
         "parallelRecovery": "--parallel-recovery", "expandCommands": "--expand-commands", "verbose": "--verbose"}
# The values of the Labs chart, with their defaults.
LABS = {
    "image": "gcr.io/neo4j-helm/backup", "imageTag": "4.4.10", "podLabels": {}, "podAnnotations": {},
    "neo4jaddr": "holder-neo4j.default.svc.cluster.local:6362", "bucket": "gs://test-neo4j", "database": "neo4j,system",
    "cloudProvider": "gcp", "secretName": "neo4j-gcp-credentials", "serviceAccountName": "", "jobSchedule": "0 */12 * * *",
    "backoffLimit": 6, "pageCache": "2G", "heapSize": "2G", "fallbackToFull": "true", "checkConsistency": "true",
    "checkIndexes": "true", "checkGraph": "true", "checkLabelScanStore": "true", "checkPropertyOwners": "false",
    "removeExistingFiles": "true", "removeBackupFiles": "true", "tempVolume": {"emptyDir": {}},
    "tempVolumeMount": {"subPath": ""}, "shareProcessNamespace": False, "sidecarContainers": [],
}
# The values of neo4j/helm-charts' neo4j-admin chart.
OTHER = """nameOverride fullnameOverride disableLookups image imageTag podLabels podAnnotations labels jobSchedule
    successfulJobsHistoryLimit failedJobsHistoryLimit backoffLimit databaseBackupEndpoints databaseAdminServiceName
    databaseAdminServiceIP databaseNamespace databaseBackupPort databaseClusterDomain database cloudProvider bucketName
    secretName secretKeyName serviceAccountName azureStorageAccountName minioEndpoint s3Endpoint s3EndpointTLS s3CACert
    s3SkipVerify s3ForcePathStyle s3Region s3CASecretName s3CASecretKey keepBackupFiles pageCache heapSize includeMetadata type
    keepFailed parallelRecovery verbose compress preferDiffAsParent fallbackToFull aggregate consistencyCheck tempVolume
    securityContext containerSecurityContext resources nodeSelector affinity tolerations imagePullSecret"""
# The examples of the Labs chart's documentation, as they stand there.
EXAMPLES = {
    "aws": ["neo4jaddr=my-neo4j.default.svc.cluster.local:6362", "bucket=s3://my-bucket", r"database=neo4j\,system",
            "cloudProvider=aws", "secretName=neo4j-aws-credentials", "jobSchedule=0 */12 * * *"],
    "workload identity": ["neo4jaddr=my-neo4j.default.svc.cluster.local:6362", "bucket=gs://my-bucket",
                          r"database=neo4j\,system", "cloudProvider=gcp", "secretName=NULL",
                          "serviceAccountName=my-neo4j-backup-sa", "jobSchedule=0 */12 * * *"],
    "gcp": ["neo4jaddr=my-neo4j.default.svc.cluster.local:6362", "bucket=gs://my-bucket", r"database=neo4j\,system",
            "cloudProvider=gcp", "secretName=neo4j-gcp-credentials", "jobSchedule=0 */12 * * *"],
    "azure": ["neo4jaddr=my-neo4j.default.svc.cluster.local:6362", "bucket=my-blob-container-name",
              r"database=neo4j\,system", "cloudProvider=azure", "secretName=neo4j-azure-credentials",
              "jobSchedule=0 */12 * * *"],
}


class Rendered(DeployCase):
    def test_lint(self):
        out = subprocess.run([HELM, "lint", "--strict", CHART, *self.sets(REQUIRED)], env=self.helm_env(), text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual(0, out.returncode, out.stdout)
        self.assertNotIn("[WARNING]", out.stdout)

    def test_defaults(self):
        job = self.render(REQUIRED, release="my-neo4j-backup")
        self.assertEqual("my-neo4j-backup-job", job["metadata"]["name"])
        spec, of_job = job["spec"], job["spec"]["jobTemplate"]["spec"]
        self.assertEqual({"schedule": "0 */12 * * *", "concurrencyPolicy": "Forbid", "successfulJobsHistoryLimit": 3,
                          "failedJobsHistoryLimit": 1}, {k: v for k, v in spec.items() if k != "jobTemplate"})
        self.assertEqual(1, of_job["backoffLimit"])
        self.assertIn({"action": "FailJob", "onPodConditions": [],
                       "onExitCodes": {"containerName": "backup", "operator": "In", "values": [2]}}, of_job["podFailurePolicy"]["rules"])
        self.assertEqual({"backoffLimit", "podFailurePolicy", "template"}, set(of_job), "no deadline")
        pod, container = self.pod(job), self.container(job)
        self.assertEqual("Never", pod["restartPolicy"])
        self.assertEqual(60, pod["terminationGracePeriodSeconds"])
        self.assertEqual({"runAsUser": 7474, "runAsGroup": 7474, "runAsNonRoot": True, "fsGroup": 7474,
                          "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"}},
                         pod["securityContext"])
        self.assertTrue(container["securityContext"]["readOnlyRootFilesystem"])
        self.assertEqual(["/scripts/backup.sh"], container["command"])
        self.assertNotIn("args", container)
        self.assertEqual("FallbackToLogsOnError", container["terminationMessagePolicy"])
        self.assertEqual({"/backups": "backup", "/tmp": "tmp", "/logs": "logs", "/credentials": "credentials"},
                         {m["mountPath"]: m["name"] for m in container["volumeMounts"]})
        self.assertEqual(self.volume(job, "credentials")["secret"]["items"], [{"key": "credentials", "path": "credentials"}])
        self.assertEqual({"name": "backup", "emptyDir": {}}, self.volume(job, "backup"))
        self.assertEqual(ENV, self.environment(job))

    def test_values_are_those_of_the_labs_chart(self):
        """Each name is there, with the same default, but for those that docs/deploy.md tells of."""
        with open(os.path.join(CHART, "values.yaml"), encoding="utf-8") as file:
            (values,) = self.read_yaml(file.read())
        with open(os.path.join(ROOT, "docs", "deploy.md"), encoding="utf-8") as file:
            told = file.read().split("## Coming from the Labs chart")[1].split("\n## ")[0]
        different = {name for name, default in LABS.items() if values[name] != default}
        self.assertEqual({"image", "imageTag", "neo4jaddr", "bucket", "secretName", "backoffLimit", "tempVolume"}, different)
        for name in different:
            self.assertIn(f"`{name}", told)
        self.assertEqual({}, values["tempVolume"])
        for name in ("neo4jaddr", "bucket", "secretName"):
            self.assertEqual("", values[name], "a placeholder")

    def test_values_of_the_other_chart_are_translated(self):
        with open(os.path.join(ROOT, "docs", "neo4j.md"), encoding="utf-8") as file:
            told = file.read().split("## Coming from the neo4j-admin chart")[1]
        for name in OTHER.split():
            self.assertRegex(told, rf"[`.]{name}\b")

    def test_databases_is_database(self):
        for values in ({"databases": "a,b"}, {"databases": "a,b", "database": None}, {"databases": None, "database": "a,b"},
                       {"databases": "", "database": "a,b"}):
            self.assertEqual(dict(ENV, DATABASE="a,b"), self.environment(self.render({**REQUIRED, **values})))
        self.assertIn("a,b of my-neo4j", self.notes({**REQUIRED, "databases": "a,b"}))

    def test_examples_of_the_documentation(self):
        for name, sets in EXAMPLES.items():
            with self.subTest(name):
                job = self.render(sets=sets)
                env = self.environment(job)
                expected = dict(ENV, **{key: value for key, value in (s.replace("\\", "").split("=", 1) for s in sets)
                                        if key.isupper()})
                expected["BUCKET"] = sets[1].split("=")[1]
                expected["CLOUD_PROVIDER"] = sets[3].split("=")[1]
                if name == "workload identity":
                    del expected["LUNARK_CREDENTIALS"]
                    self.assertEqual("my-neo4j-backup-sa", self.pod(job)["serviceAccountName"])
                    self.assertIsNone(self.volume(job, "credentials"))
                self.assertEqual(expected, env)

    def test_false_means_false(self):
        for value, variable in BOOLEANS.items():
            for false in (False, "false"):
                self.assertEqual(dict(ENV, **{variable: "false"}), self.environment(self.render({**REQUIRED, value: false})))
            for true in (True, "true"):
                self.assertEqual(dict(ENV, **{variable: "true"}), self.environment(self.render({**REQUIRED, value: true})))
        for value, flag in FLAGS.items():
            for given in (False, "false", True):
                args = self.container(self.render({**REQUIRED, value: given}))["args"]
                self.assertEqual([f"{flag}={str(given).lower()}"], args)
        self.assertEqual(dict(ENV, HEAP_SIZE="2147483648"), self.environment(self.render({**REQUIRED, "heapSize": 2147483648})))
        for value in ("shareProcessNamespace", "suspend", "strict"):
            self.assertEqual(self.render(REQUIRED), self.render({**REQUIRED, value: False}))
            self.assertEqual(self.render(REQUIRED), self.render({**REQUIRED, value: "false"}))
        self.assertTrue(self.pod(self.render({**REQUIRED, "shareProcessNamespace": True}))["shareProcessNamespace"])
        self.assertTrue(self.render({**REQUIRED, "suspend": True})["spec"]["suspend"])

    def test_null_is_the_default(self):
        with open(os.path.join(CHART, "values.schema.json"), encoding="utf-8") as file:
            properties = json.load(file)["properties"]
        names = [n for n, of in properties.items() if "null" in of.get("type", ()) or None in of.get("enum", ())]
        names = [n for n in names if n not in (*REQUIRED, "database")]
        self.assertGreater(len(names), 40)
        job = self.render({**REQUIRED, **dict.fromkeys(names)})
        gone = {*BOOLEANS.values(), "HEAP_SIZE", "PAGE_CACHE", "LUNARK_LOG_FORMAT", "LUNARK_LOG_LEVEL"}
        self.assertEqual({k: v for k, v in ENV.items() if k not in gone}, self.environment(job))
        self.assertEqual((1, 60), (job["spec"]["jobTemplate"]["spec"]["backoffLimit"],
                                   self.pod(job)["terminationGracePeriodSeconds"]))
        self.render({**REQUIRED, "s3": {"ca": None, "endpoint": None, "region": None, "forcePathStyle": None},
                     "additionalConfig": {"key": None}, "tempVolumeMount": {"subPath": None}})

    def test_everything_else(self):
        job = self.render({
            **REQUIRED, "database": "neo4j, *", "timeZone": "Europe/Berlin", "backoffLimit": 0, "failedJobsHistoryLimit": 0,
            "activeDeadlineSeconds": 3600, "startingDeadlineSeconds": 600, "ttlSecondsAfterFinished": 0,
            "labels": {"team": "graphs"}, "annotations": {"note": "x: y"}, "podLabels": {"app": "backup"},
            "podAnnotations": {"sidecar.istio.io/inject": "false"}, "serviceAccountName": "sa",
            "resources": {"limits": {"memory": "6Gi"}, "requests": {"cpu": "500m"}}, "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "k", "operator": "Exists"}], "imagePullSecrets": [{"name": "registry"}],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}}},
            "extraEnv": [{"name": "LUNARK_MEMORY", "value": "64M"}], "extraVolumes": [{"name": "v", "emptyDir": {}}],
            "extraEnvFrom": [{"configMapRef": {"name": "more"}}], "extraVolumeMounts": [{"name": "v", "mountPath": "/v"}],
            "tempVolumeMount": {"subPath": "neo4j"}, "tempVolume": {"persistentVolumeClaim": {"claimName": "c"}},
            "s3": {"endpoint": "https://minio.example:9000", "region": "eu-west-1", "forcePathStyle": True,
                   "ca": {"secretName": "ca", "key": "tls.crt"}},
            "includeMetadata": "users", "type": "FULL", "parallel": 2, "strict": True, "extraArgs": ["--timeout", "2h"],
            "additionalConfig": {"configMapName": "ssl", "key": "backup.conf"}, "priorityClassName": "low",
            "podSecurityContext": {"runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": False},
            "sidecarContainers": [{"name": "end", "image": "busybox", "command": ["sh"]}], "logFormat": "text",
        })
        spec, pod, container = job["spec"], self.pod(job), self.container(job)
        self.assertEqual(("Europe/Berlin", 600, 0), (spec["timeZone"], spec["startingDeadlineSeconds"],
                                                     spec["failedJobsHistoryLimit"]))
        of_job = spec["jobTemplate"]["spec"]
        self.assertEqual((0, 3600, 0), (of_job["backoffLimit"], of_job["activeDeadlineSeconds"],
                                        of_job["ttlSecondsAfterFinished"]))
        for meta in (job["metadata"], spec["jobTemplate"]["metadata"]):
            self.assertEqual(("graphs", "x: y"), (meta["labels"]["team"], meta["annotations"]["note"]))
        self.assertEqual("backup", of_job["template"]["metadata"]["labels"]["app"])
        self.assertEqual("false", of_job["template"]["metadata"]["annotations"]["sidecar.istio.io/inject"])
        self.assertEqual({"name": "backup", "persistentVolumeClaim": {"claimName": "c"}}, self.volume(job, "backup"))
        self.assertEqual(["backup", "end"], [c["name"] for c in pod["containers"]])
        self.assertEqual((0, 0, False), tuple(pod["securityContext"][k] for k in ("runAsUser", "runAsGroup", "runAsNonRoot")))
        self.assertTrue(pod["automountServiceAccountToken"])
        self.assertEqual(["--include-metadata=users", "--type=FULL", "--additional-config=/additional-config/backup.conf",
                          "--parallel=2", "--strict=true", "--timeout", "2h"], container["args"])
        self.assertEqual({"name": "additional-config", "configMap": {"name": "ssl"}}, self.volume(job, "additional-config"))
        self.assertEqual("ca", self.volume(job, "ca")["secret"]["secretName"])
        mounts = {m["mountPath"]: m for m in container["volumeMounts"]}
        self.assertEqual("neo4j", mounts["/backups"]["subPath"])
        self.assertEqual({"/backups", "/tmp", "/logs", "/credentials", "/ca", "/additional-config", "/v"}, set(mounts))
        self.assertEqual(dict(
            ENV, DATABASE="neo4j, *", BUCKET="s3://my-bucket?path_style=true", LUNARK_LOG_FORMAT="text", LUNARK_MEMORY="64M",
            AWS_ENDPOINT_URL_S3="https://minio.example:9000", AWS_REGION="eu-west-1", AWS_CA_BUNDLE="/ca/tls.crt",
        ), self.environment(job))

    def test_volumes(self):
        # The Labs chart's own default beside another volume, as its values come together.
        job = self.render({**REQUIRED, "tempVolume": {"emptyDir": {}, "hostPath": {"path": "/srv"}}})
        self.assertEqual({"name": "backup", "hostPath": {"path": "/srv"}}, self.volume(job, "backup"))
        job = self.render({**REQUIRED, "tempVolume": {"emptyDir": {"sizeLimit": "5Gi"}}})
        self.assertEqual({"name": "backup", "emptyDir": {"sizeLimit": "5Gi"}}, self.volume(job, "backup"))
        self.refused({**REQUIRED, "tempVolume": {"nfs": {"server": "a", "path": "/b"}, "hostPath": {"path": "/srv"}}},
                     "tempVolume: one kind of volume expected, there are hostPath, nfs")

    def test_names(self):
        self.assertEqual(52, len(self.render(REQUIRED, release="r" * 48)["metadata"]["name"]))
        self.refused(REQUIRED, "has 53 characters, at most 52 expected: take a shorter release name", release="r" * 49)
        self.refused(REQUIRED, "has 57 characters, at most 52 expected: take a shorter release name", release="r" * 53)

    def test_what_is_missing(self):
        for nothing in (None, "", "NULL", "null"):
            self.refused({**REQUIRED, "secretName": nothing}, "secretName or serviceAccountName is missing")
            self.refused({**REQUIRED, "secretName": nothing, "serviceAccountName": nothing},
                         "secretName or serviceAccountName is missing")
            pod = self.pod(self.render({**REQUIRED, "serviceAccountName": nothing}))
            self.assertEqual((None, False), (pod.get("serviceAccountName"), pod["automountServiceAccountToken"]))
        for name in ("neo4jaddr", "bucket", "database"):
            self.refused({**REQUIRED, name: ""}, f"{name} is missing: add --set {name}=")
        self.refused({**REQUIRED, "additionalConfig": {"secretName": "a", "configMapName": "b"}},
                     "additionalConfig: secretName and configMapName exclude each other")

    def test_schema(self):
        for values, message in (
                ({"checkgraph": True}, "additional properties 'checkgraph' not allowed"),
                ({"s3": {"bucket": "x"}}, "at '/s3': additional properties 'bucket' not allowed"),
                ({"checkGraph": "yes"}, "at '/checkGraph': value must be one of true, false, 'true', 'false'"),
                ({"cloudProvider": "azur"}, "at '/cloudProvider': value must be one of 'aws', 'gcp', 'azure'"),
                ({"heapSize": "2 gigs"}, "at '/heapSize'"), ({"jobSchedule": "hourly"}, "at '/jobSchedule'"),
                ({"backoffLimit": -1}, "at '/backoffLimit'"), ({"podLabels": {"a": 1}}, "at '/podLabels/a'"),
                ({"secretName": "Not_A_Name"}, "at '/secretName'"), ({"s3": {"ca": {"secretName": "NULL"}}}, "at '/s3/ca/secretName'"),
                ({"additionalConfig": {"configMapName": "NULL"}}, "at '/additionalConfig/configMapName'"), ({"parallel": 0}, "at '/parallel'"),
                ({"s3": {"endpoint": "minio:9000"}}, "at '/s3/endpoint'")):
            self.refused({**REQUIRED, **values}, message)

    def test_notes(self):
        notes = self.notes(REQUIRED, release="my-neo4j-backup")
        self.assertIn("kubectl create job --namespace default --from=cronjob/my-neo4j-backup-job my-neo4j-backup-now", notes)


if __name__ == "__main__":
    main()
