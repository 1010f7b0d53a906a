#!/bin/sh
# SPDX-License-Identifier: MIT
# backup.sh [OPTION...] - what the backup container runs: `lunark backup neo4j` with the Labs chart's variables and its
# defaults. Options are those of lunark.
#
# NEO4J_ADDR, DATABASE, CLOUD_PROVIDER, BUCKET, ...: docs/neo4j.md
# HEAP_SIZE, PAGE_CACHE  of neo4j-admin, 2G each where nothing is said
# BACKUP_DIR             where neo4j-admin writes, /backups where nothing is said
#
# Sidecars of a mesh look for a process called backup.sh: so lunark is run by a link of that name. It gets signals itself.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
export HEAP_SIZE="${HEAP_SIZE:-2G}" PAGE_CACHE="${PAGE_CACHE:-2G}"
exec "${here%/scripts}/usr/lib/lunark/scripts/backup.sh" backup neo4j --backup-dir "${BACKUP_DIR:-/backups}" \
    --log-to stdout "$@"
