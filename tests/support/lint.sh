#!/bin/sh
# SPDX-License-Identifier: MIT
# lint.sh - what the style asks and a program can check. Ends with status 1 after naming every finding.
# lint.sh --format rewrites the C files instead.
set -u
cd "$(dirname "$0")/../.."
: "${LUNARK_CACHE:=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/lunark}"
failed=0
bad() { printf 'lint: %s\n' "$*" >&2; failed=1; }
c_files() { git ls-files -co --exclude-standard -- 'runtime/*.[ch]' 'tests/*.[ch]' 'bench/*.[ch]'; }
lua_files() { git ls-files -co --exclude-standard -- '*.lua'; }

format=$LUNARK_CACHE/clang-format-14.0.6/bin/clang-format
[ -x "$format" ] || format=$(command -v clang-format-14 || command -v clang-format || true)
if [ "${1:-}" = --format ]; then
    exec "$format" -i $(c_files)
fi

if [ -n "$format" ] && "$format" --version | grep -q 'version 14'; then
    for file in $(c_files); do
        "$format" --dry-run -Werror "$file" >/dev/null 2>&1 || bad "$file is not formatted: make format"
    done
elif [ -n "${LUNARK_REQUIRE_ALL:-}" ]; then
    bad "clang-format 14 is missing"
else
    echo "lint: format not checked: clang-format 14 is not here"
fi

# Compilers: no warnings from either.
defs="-D_GNU_SOURCE -DLUNARK_VERSION=\"lint\" -DHAVE_LIBDEFLATE -DHAVE_ISAL"
warn="-std=c11 -O2 -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wwrite-strings -Wundef -Werror"
pkgs=$(pkg-config --cflags lua5.4 libcurl libcrypto zlib libarchive libdeflate libisal)
if command -v clang >/dev/null 2>&1; then
    for file in $(c_files | grep '\.c$'); do
        clang $warn $defs $pkgs -iquote runtime -iquote tests/unit -fsyntax-only "$file" || bad "$file: clang has warnings"
    done
elif [ -n "${LUNARK_REQUIRE_ALL:-}" ]; then
    bad "clang is missing"
else
    echo "lint: clang's warnings not checked: clang is not here"
fi

# Banned calls, layers, long files and lines.
for file in $(c_files); do
    grep -nHE '(^|[^_[:alnum:]])(strcpy|strcat|sprintf|vsprintf|gets|atoi|strtok|system|popen|setlocale|chdir|umask|setenv|putenv)[[:space:]]*\(' \
        "$file" | grep -vE '^[^:]*:[0-9]*:[[:space:]]*(/?\*|//)' && bad "$file: banned call"
    awk -v f="$file" 'length($0) > 100 { printf "%s:%d: %d columns\n", f, NR, length($0); n++ } END { exit n > 0 }' \
        "$file" || bad "$file: lines over 100 columns"
done
for file in $(c_files) $(lua_files); do
    head -n 2 "$file" | grep -q 'SPDX-License-Identifier: MIT' || bad "$file: no licence line at the top"
    # A function begins and ends at the margin: `{` and `}` in C, `function` and `end` in Lua.
    awk -v f="$file" '/^\{|^(local )?function / { start = NR }
        /^(\}|end)$/ && start { if (NR - start > 61) { printf "%s:%d: %d lines\n", f, start, NR - start - 1; n++ }; start = 0 }
        END { exit n > 0 }' "$file" || bad "$file: functions of more than 60 lines"
done
grep -lE '#[[:space:]]*include[[:space:]]*[<"](lua|lauxlib|lualib)\.h' runtime/*.[ch] 2>/dev/null |
    grep -vE '^runtime/lua_[a-z0-9_]+\.[ch]$' && bad "only runtime/lua_*.[ch] may include Lua"
grep -nE "(^|[^.[:alnum:]_])(io\.|os\.(execute|exit|remove|rename|tmpname)|require[ (]*['\"]posix)" \
    $(lua_files | grep -E '^(providers|scripts/policies)/') &&
    bad "providers and policies use the library, not io, os or posix"
grep -nE "require[ (]*['\"]lunark\.(core\.)?(exec|fs|file)['\"]" $(lua_files | grep '^providers/') &&
    bad "a provider acts through what open gives it: no programs, no files"
for file in $(c_files | grep '^runtime/') $(lua_files); do
    lines=$(wc -l < "$file")
    [ "$lines" -le 600 ] || bad "$file has $lines lines; split it by responsibility (600)"
done

# Lua.
if command -v luacheck >/dev/null 2>&1; then
    luacheck -q $(lua_files) || bad "luacheck has findings"
else
    bad "luacheck is missing (package lua-check)"
fi

# Environment, names of hosts, paths of one machine.
git grep -nIE '(deb\.debian|pypi|npmjs|proxy\.golang|crates|repo1?\.maven)\.(org|io|com)|repo1?\.maven\.' -- . ':!tests/support/lint.sh' && bad "the name of a package registry"

[ "$failed" = 0 ] && echo "lint: clean"
exit "$failed"
