{{/* SPDX-License-Identifier: MIT */}}

{{/* Fails where values contradict each other or are missing. */}}
{{- define "neo4j-backup.check" -}}
{{- $name := printf "%s-job" .Release.Name -}}
{{- if gt (len $name) 52 -}}
{{- fail (printf "the name of the cron job, '%s', has %d characters, at most 52 expected: take a shorter release name" $name (len $name)) -}}
{{- end -}}
{{- range list "neo4jaddr" "bucket" "cloudProvider" -}}
{{- if not (get $.Values .) -}}
{{- fail (printf "%s is missing: add --set %s=..." . .) -}}
{{- end -}}
{{- end -}}
{{- if not (include "neo4j-backup.database" .) -}}
{{- fail "database is missing: add --set database=..." -}}
{{- end -}}
{{- if not (or (include "neo4j-backup.secret" .) (include "neo4j-backup.serviceAccount" .)) -}}
{{- fail "secretName or serviceAccountName is missing: name a secret with the key 'credentials' (the Labs chart's default is neo4j-gcp-credentials), or a service account that may write to the bucket" -}}
{{- end -}}
{{- $s3 := .Values.s3 | default dict -}}
{{- range $name, $of := dict "s3.ca" $s3.ca "additionalConfig" .Values.additionalConfig -}}
{{- $of = $of | default dict -}}
{{- if and $of.secretName $of.configMapName -}}
{{- fail (printf "%s: secretName and configMapName exclude each other" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "neo4j-backup.database" -}}
{{- .Values.databases | default .Values.database | default "" -}}
{{- end -}}

{{/* The secret with credentials, and the service account; the Labs chart writes NULL for none. */}}
{{- define "neo4j-backup.secret" -}}
{{- include "neo4j-backup.named" .Values.secretName -}}
{{- end -}}

{{- define "neo4j-backup.serviceAccount" -}}
{{- include "neo4j-backup.named" .Values.serviceAccountName -}}
{{- end -}}

{{- define "neo4j-backup.named" -}}
{{- $name := . | default "" | toString -}}
{{- if ne (upper $name) "NULL" -}}{{- $name -}}{{- end -}}
{{- end -}}

{{/* The volume of the backups. An empty emptyDir gives way to another source: so it is with the Labs chart's values. */}}
{{- define "neo4j-backup.volume" -}}
{{- $sources := dict -}}
{{- range $kind, $of := .Values.tempVolume -}}
{{- if and (not (kindIs "invalid" $of)) (or (ne $kind "emptyDir") $of) -}}
{{- $_ := set $sources $kind $of -}}
{{- end -}}
{{- end -}}
{{- if gt (len $sources) 1 -}}
{{- fail (printf "tempVolume: one kind of volume expected, there are %s" (keys $sources | sortAlpha | join ", ")) -}}
{{- end -}}
{{- if $sources -}}{{- toYaml $sources -}}{{- else -}}emptyDir: {}{{- end -}}
{{- end -}}

{{/* The store. Path style has no variable: it is an option behind the name of the bucket. */}}
{{- define "neo4j-backup.bucket" -}}
{{- $bucket := .Values.bucket -}}
{{- $style := (.Values.s3 | default dict).forcePathStyle -}}
{{- if and (eq .Values.cloudProvider "aws") (not (kindIs "invalid" $style)) -}}
{{- $bucket = printf "%s%s" $bucket (printf "%spath_style=%v" (ternary "&" "?" (contains "?" $bucket)) $style) -}}
{{- end -}}
{{- $bucket -}}
{{- end -}}

{{- define "neo4j-backup.labels" -}}
app.kubernetes.io/name: neo4j-backup
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: backup
{{- end -}}

{{- define "neo4j-backup.allLabels" -}}
{{- $own := dict "app.kubernetes.io/managed-by" .Release.Service "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version) -}}
{{- toYaml (merge (include "neo4j-backup.labels" . | fromYaml) $own (.Values.labels | default dict)) -}}
{{- end -}}

{{/* Environment: the Labs chart's variables, then what lunark has besides. A value that is null is left out. */}}
{{- define "neo4j-backup.env" -}}
{{- $s3 := .Values.s3 | default dict -}}
{{- $azure := .Values.azure | default dict -}}
{{- range $pair := list
  (list "NEO4J_ADDR" .Values.neo4jaddr) (list "DATABASE" (include "neo4j-backup.database" .)) (list "CLOUD_PROVIDER" .Values.cloudProvider)
  (list "BUCKET" (include "neo4j-backup.bucket" .)) (list "HEAP_SIZE" .Values.heapSize)
  (list "PAGE_CACHE" .Values.pageCache) (list "FALLBACK_TO_FULL" .Values.fallbackToFull)
  (list "CHECK_CONSISTENCY" .Values.checkConsistency) (list "CHECK_INDEXES" .Values.checkIndexes)
  (list "CHECK_GRAPH" .Values.checkGraph) (list "CHECK_LABEL_SCAN_STORE" .Values.checkLabelScanStore)
  (list "CHECK_PROPERTY_OWNERS" .Values.checkPropertyOwners)
  (list "REMOVE_EXISTING_FILES" .Values.removeExistingFiles) (list "REMOVE_BACKUP_FILES" .Values.removeBackupFiles)
  (list "LUNARK_CREDENTIALS" (ternary "/credentials/credentials" "" (ne (include "neo4j-backup.secret" .) "")))
  (list "LUNARK_LOG_FORMAT" .Values.logFormat) (list "LUNARK_LOG_LEVEL" .Values.logLevel)
  (list "AWS_ENDPOINT_URL_S3" $s3.endpoint) (list "AWS_REGION" $s3.region)
  (list "AWS_CA_BUNDLE" (include "neo4j-backup.file" (list $s3.ca "/ca" "ca.crt")))
  (list "AZURE_STORAGE_ACCOUNT" $azure.storageAccount) }}
{{- $value := index $pair 1 }}
{{- if kindIs "float64" $value }}{{ $value = int64 $value }}{{ end }}
{{- if not (or (kindIs "invalid" $value) (eq (toString $value) "")) }}
- name: {{ index $pair 0 }}
  value: {{ toString $value | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Path of a file from a config map or secret: (list {secretName, configMapName, key} FOLDER KEY); nothing without. */}}
{{- define "neo4j-backup.file" -}}
{{- $of := index . 0 | default dict -}}
{{- if or $of.secretName $of.configMapName -}}
{{- printf "%s/%s" (index . 1) ($of.key | default (index . 2)) -}}
{{- end -}}
{{- end -}}

{{/* Its volume: (list {secretName, configMapName} NAME). */}}
{{- define "neo4j-backup.fileVolume" -}}
{{- $of := index . 0 | default dict -}}
{{- if $of.secretName -}}
- name: {{ index . 1 }}
  secret:
    secretName: {{ $of.secretName | quote }}
    defaultMode: 0440
{{- else if $of.configMapName -}}
- name: {{ index . 1 }}
  configMap:
    name: {{ $of.configMapName | quote }}
{{- end -}}
{{- end -}}

{{/* Options that have no variable, as a list in YAML. */}}
{{- define "neo4j-backup.args" -}}
{{- $file := include "neo4j-backup.file" (list .Values.additionalConfig "/additional-config" "neo4j.conf") -}}
{{- range $pair := list
  (list "include-metadata" .Values.includeMetadata) (list "check-index-structure" .Values.checkIndexStructure)
  (list "prepare-restore" .Values.prepareRestore) (list "parallel-recovery" .Values.parallelRecovery)
  (list "keep-failed" .Values.keepFailed) (list "expand-commands" .Values.expandCommands)
  (list "verbose" .Values.verbose) (list "type" .Values.type) (list "additional-config" $file)
  (list "parallel" (ternary nil .Values.parallel (eq (toString .Values.parallel) "1")))
  (list "strict" (ternary nil .Values.strict (eq (toString .Values.strict) "false"))) }}
{{- $value := index $pair 1 }}
{{- if not (or (kindIs "invalid" $value) (eq (toString $value) "")) }}
- {{ printf "--%s=%v" (index $pair 0) $value | quote }}
{{- end }}
{{- end }}
{{- range .Values.extraArgs }}
- {{ . | toString | quote }}
{{- end }}
{{- end -}}
