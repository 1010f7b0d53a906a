#!/bin/sh
# SPDX-License-Identifier: MIT
# restore.sh [OPTION...] - what the restore container runs, before the server starts: `lunark restore neo4j` with the Labs
# chart's variables. A database that is there stays as it is unless FORCE_OVERWRITE is true, and what was restored
# once is not restored again when the pod is started again. Ends with another status than 0 when anything failed.
#
# DATABASE, CLOUD_PROVIDER, BUCKET, TIMESTAMP, FORCE_OVERWRITE, PURGE_ON_COMPLETE, BACKUP_SET_DIR: docs/neo4j.md
# DATA_DIR  the server's data folder, /data where nothing is said
set -eu
exec lunark restore neo4j --data-dir "${DATA_DIR:-/data}" --skip-existing --once --log-to stdout "$@"
