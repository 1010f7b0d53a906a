#!/bin/sh
# SPDX-License-Identifier: MIT
# demo.sh LUNARK - the main job on real input: backs up $DEMO (this clone by default) into a local store, lists it, restores it
# elsewhere and compares. Everything is kept below $DEMO_OUT (default: a new folder in $TMPDIR) for a look.
set -eu
lunark=$1
source=$(cd "${DEMO:-.}" && pwd -P)
out=${DEMO_OUT:-$(mktemp -d "${TMPDIR:-/tmp}/lunark-demo.XXXXXX")}
mkdir -p "$out"
store=$out/store
into=$out/restored
name=$(basename "$source")
step() { printf '\n\033[1m$ %s\033[0m\n' "$*"; "$@"; }

# The build folder changes while this runs, and has nothing worth keeping.
step "$lunark" backup files "$source" --to "$store" --exclude "${source#/}/build"
step "$lunark" list "$store"
rm -rf "$into"
step "$lunark" restore --from "$store" --item "$name" --into "$into"
step diff -r --no-dereference --exclude build "$source" "$into/${source#/}"

archive=$(ls "$store/$name/$name"-latest.tar.gz)
printf '\nThe restored tree is the same as the source.\n'
printf '  source    %s\n  store     %s\n  archive   %s (%s bytes; tar xzf reads it without lunark)\n  restored  %s\n' \
    "$source" "$store" "$archive" "$(stat -c %s "$archive")" "$into/${source#/}"
