#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The conformance suite (conformance.lua) on every kind of store: directories, real servers of each service, and the
provider that docs/providers.md has as its example.

Prints what each run prints, and one closing line `N passed, N failed, N skipped` for all."""
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LUARUN = os.path.join(ROOT, "build", os.environ.get("LUNARK_TEST_BUILD", "release"), "luarun")
SUITE = [LUARUN, "tests/lua/run.lua", "tests/provider/conformance.lua"]
SERVER = os.path.join(ROOT, "tests", "support", "server")
LIMIT = 300
# What gcp-storage-emulator can't do, whoever asks.
GCSEMULATOR_LACKS = (
    "test_dots_do_not_leave_the_prefix",  # it keeps keys as paths, and breaks the connection over `..`
    "test_trailing_slash",  # for the same reason that is the name without it
    "test_abort_leaves_nothing",  # DELETE of an upload session: 501
    "test_copy", "test_copy_replaces",  # rewrite does not take the metadata of the request
    "test_list_pages",  # maxResults is not looked at
)
MOTO_LACKS = ("test_uploads_in_flight",)  # each began in 2010
UNAVAILABLE = 77


def run(title, argv, env):
    """(passed, failed, skipped) of the suite on one store."""
    print(f"--- {title}", flush=True)
    environment = dict(os.environ, **env)
    try:
        child = subprocess.run(argv, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired as late:
        print((late.stdout or b"").decode(errors="replace"))
        print(f"{title}: not done after {LIMIT} s")
        return 0, 1, 0
    text = child.stdout.decode(errors="replace")
    # luaunit's own closing line would be taken for the one of this program.
    print(re.sub(r"^Ran (\d+) tests", r"ran \1 tests", text, flags=re.M))
    if child.returncode == UNAVAILABLE:
        print(f"{title}: skipped, the server can't be had here")
        return 0, 0, 1
    found = re.search(r"^Ran (\d+) tests? in .*?, (\d+) success", text, re.M)
    if not found:
        return 0, 1, 0
    total, passed = int(found.group(1)), int(found.group(2))
    return passed, max(total - passed, 1 if child.returncode else 0), 0


def directories():
    """On the disk, behind a link, in memory."""
    results = []
    for title, base in (("a directory", None), ("a directory in memory", "/dev/shm")):
        if base and not os.path.isdir(base):
            print(f"{title}: skipped, there is no {base}")
            results.append((0, 0, 1))
            continue
        scratch = tempfile.mkdtemp(prefix="lunark-conformance-", dir=base)
        try:
            results.append(run(title, SUITE, {"LUNARK_TEST_STORE": os.path.join(scratch, "store")}))
            if not base:
                link = os.path.join(scratch, "link to a store")
                os.mkdir(os.path.join(scratch, "real"))
                os.symlink("real", link)
                results.append(run("a link to a directory", SUITE, {"LUNARK_TEST_STORE": link}))
        finally:
            shutil.rmtree(scratch)
    return results


def webdav():
    """The example of the documentation, from a script directory."""
    with open("docs/providers.md", encoding="utf-8") as file:
        code = re.findall(r"```lua\n(.*?)```", file.read(), re.S)[-1]
    with tempfile.TemporaryDirectory(prefix="lunark-conformance-") as scratch:
        os.mkdir(os.path.join(scratch, "providers"))
        with open(os.path.join(scratch, "providers", "webdav.lua"), "w", encoding="utf-8") as file:
            file.write(code)
        command = 'LUNARK_TEST_STORE="$LUNARK_TEST_WEBDAV_URL/some/pre%20fix" exec "$@"'
        env = {"LUNARK_PATH": scratch, "LUNARK_TEST_WRONG": "password=wrong"}
        return run("webdav", [SERVER, "webdav", "--", "sh", "-c", command, "sh", *SUITE], env)


def main():
    os.chdir(ROOT)
    if not os.path.exists(LUARUN):
        print(f"{LUARUN} is not there: make tests\n0 passed, 1 failed")
        return 1
    results = directories()
    results.append(webdav())
    wrong = "access_key_id=lunarktestaccess,secret_access_key=this+is/not=it"
    for server in ("versitygw", "moto", "minio"):
        env = {"LUNARK_TEST_STORE": "s3://lunark-test/some/pre%20fix", "LUNARK_TEST_WRONG": wrong,
               "LUNARK_TEST_LACKS": ",".join(MOTO_LACKS if server == "moto" else ())}
        results.append(run(server, [SERVER, server, "--", *SUITE], env))
    for server, lacks in (("fakegcs", ()), ("gcsemulator", GCSEMULATOR_LACKS)):
        env = {"LUNARK_TEST_STORE": "gs://lunark-test/some/pre%20fix", "LUNARK_TEST_WRONG": "unchecked",
               "LUNARK_TEST_LACKS": ",".join(lacks)}
        results.append(run(server, [SERVER, server, "--", *SUITE], env))
    env = {"LUNARK_TEST_STORE": "azure://lunark-test/some/pre%20fix",
           "LUNARK_TEST_WRONG": "account_key=d3Jvbmcga2V5"}
    results.append(run("azurite", [SERVER, "azurite", "--", *SUITE], env))
    passed, failed, skipped = (sum(column) for column in zip(*results))
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
