#!/bin/sh
# SPDX-License-Identifier: MIT
# demo.sh LUNARK - the main job on real input: backs up $DEMO (this clone by default) into a local store, lists it, restores it
# elsewhere and compares. Everything is kept below $DEMO_OUT (default: a new folder in $TMPDIR) for a look.
set -eu
lunark=$1
if ! source=$(cd "${DEMO:-.}" 2>/dev/null && pwd -P); then
    printf 'demo: DEMO=%s: a folder expected\n' "$DEMO" >&2
    exit 2
fi
out=${DEMO_OUT:-$(mktemp -d "${TMPDIR:-/tmp}/lunark-demo.XXXXXX")}
mkdir -p "$out"
out=$(cd "$out" && pwd -P)
case $out/ in
"$source"/*)
    printf 'demo: %s is inside of %s, which is backed up; name another folder with DEMO_OUT\n' "$out" "$source" >&2
    exit 2
    ;;
esac
store=$out/store
into=$out/restored
name=$(basename "$source")
bold= plain=
[ ! -t 1 ] || bold=$(printf '\033[1m') plain=$(printf '\033[0m')
shown() { printf '\n%s$ %s%s\n' "$bold" "$*" "$plain"; }
step() { shown "$@"; "$@"; }

# diff calls two FIFOs different; a socket is never stored.
compare() {
    "$@" | while IFS= read -r line; do
        case $line in
        "File "*" is a fifo while file "*" is a fifo" | \
            "File "*" special file while file "*" special file") continue ;;
        "Only in "*)
            path=${line#Only in }
            [ ! -S "${path%%: *}/${path#*: }" ] || continue
            ;;
        esac
        printf '%s\n' "$line"
    done
}

# The clone's build folder changes while this runs, and has nothing worth keeping.
built=
[ "$source" != "$(pwd -P)" ] || built=build
step "$lunark" backup files "$source" --to "$store" ${built:+--exclude "$source/$built"}
step "$lunark" list "$store"
rm -rf "$into"
step "$lunark" restore --from "$store" --item "$name" --into "$into"
set -- diff -r --no-dereference ${built:+--exclude "$built"} "$source" "$into/${source#/}"
shown "$@"
differences=$(compare "$@" 2>&1)
if [ -n "$differences" ]; then
    printf '%s\ndemo: the restored tree is not the same\n' "$differences" >&2
    exit 1
fi

archive=$store/$name/$name-latest.tar.gz
printf '\nThe restored tree is the same as the source.\n'
printf '  source    %s\n  store     %s\n  archive   %s (%s bytes; tar xzf reads it without lunark)\n  restored  %s\n' \
    "$source" "$store" "$archive" "$(stat -c %s "$archive")" "$into/${source#/}"
