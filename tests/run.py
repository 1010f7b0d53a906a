#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs the test suites one after the other and ends with the line `N passed, N failed[, N skipped]`.

run.py [--only unit,lua,provider,cli,fault,deploy,fuzz] [--build asan] [--valgrind] [--match TEXT]
Output of each program goes to build/logs; that of a failed one is printed. With LUNARK_REQUIRE_ALL set, a skipped
test is a failure.
"""
import argparse
import glob
import os
import re
import signal
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LIMIT = 900  # seconds for one program


def programs(args):
    """(suite, name, argv) of everything there is to run."""
    build = f"build/{args.build}"
    for path in sorted(glob.glob("tests/unit/test_*.c")):
        name = os.path.basename(path)[:-2]
        argv = [f"{build}/{name}"]
        if args.valgrind:
            argv = ["valgrind", "-q", "--error-exitcode=99", "--leak-check=full", "--show-leak-kinds=definite",
                    "--errors-for-leak-kinds=definite", "--fair-sched=yes", *argv]
        yield "unit", name, argv
    for path in sorted(glob.glob("tests/lua/test_*.lua")):
        yield "lua", os.path.basename(path)[:-4], [f"{build}/luarun", "tests/lua/run.lua", path]
    for suite in ("provider", "cli", "fault", "deploy", "fuzz"):
        for path in sorted(glob.glob(f"tests/{suite}/test_*.py")):
            yield suite, os.path.basename(path)[:-3], [sys.executable, path, "-v"]


def count(text):
    """passed, failed, skipped as the program's own closing line says; None without one."""
    plain = re.findall(r"^(?:\w+: )?(\d+) passed, (\d+) failed(?:, (\d+) skipped)?", text, re.M)
    if plain:
        passed, failed, skipped = plain[-1]
        return int(passed), int(failed), int(skipped or 0)
    lua = re.search(r"^Ran (\d+) tests? in .*?, (\d+) success(?:es)?(.*)$", text, re.M)
    if lua:
        rest = lua.group(3)
        failed = sum(int(n) for n in re.findall(r"(\d+) (?:failure|error)s?", rest))
        skipped = sum(int(n) for n in re.findall(r"(\d+) skipped", rest))
        return int(lua.group(2)), failed, skipped
    unit = re.search(r"^Ran (\d+) tests? in ", text, re.M)
    if unit:
        failed = sum(int(n) for n in re.findall(r"(?:failures|errors|unexpected successes)=(\d+)", text))
        skipped = sum(int(n) for n in re.findall(r"skipped=(\d+)", text))
        return int(unit.group(1)) - failed - skipped, failed, skipped
    cmocka = re.findall(r"^\[==========\] .*?(\d+) test\(s\) run", text, re.M)
    if cmocka:
        passed = sum(int(n) for n in re.findall(r"^\[  PASSED  \] (\d+) test\(s\)", text, re.M))
        failed = sum(int(n) for n in re.findall(r"^\[  FAILED  \] (\d+) test\(s\)", text, re.M))
        skipped = sum(int(n) for n in re.findall(r"^\[  SKIPPED \] (\d+) test\(s\)", text, re.M))
        return passed, failed, skipped
    return None


def skip_lines(text):
    """What was skipped and why: one line for each reason, with the tests' names."""
    reasons, lines = {}, []
    for line in text.splitlines():
        unit = re.match(r"(.*?) \.\.\. skipped (['\"])(.*)\2$", line)
        if unit:
            reason = unit.group(3).replace("\\n", " ").strip()
            reasons.setdefault(reason, []).append(re.sub(r" \(__main__\S*\)", "", unit.group(1)))
        elif re.search(r"skipp?(ed)?\b", line, re.I) and not re.search(
                r"\b0 skipped|skipped=\d+\)?$|^\[  SKIPPED \] \d+ test|\d+ skipped|^ *\d+ SKIPPED TEST", line):
            lines.append(line.strip())
    return list(dict.fromkeys(lines)) + [f"{reason}: {', '.join(tests)}" for reason, tests in reasons.items()]


def run(argv, log):
    environment = dict(os.environ)
    environment.setdefault("ASAN_OPTIONS", "detect_leaks=1:abort_on_error=0")
    environment.setdefault("UBSAN_OPTIONS", "print_stacktrace=1")
    environment.setdefault("TSAN_OPTIONS", "halt_on_error=0:exitcode=66")
    environment["LUNARK_ROOT"] = ROOT
    with open(log, "wb") as out:
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                                 env=environment, start_new_session=True)
        try:
            status = child.wait(LIMIT)
        except subprocess.TimeoutExpired:
            status = "timeout"
        # Whatever a broken test left in its group ends here.
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        child.wait()
    with open(log, encoding="utf-8", errors="replace") as text:
        return status, text.read()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="unit,lua,provider,cli,fault,deploy,fuzz")
    parser.add_argument("--build", default="asan")
    parser.add_argument("--valgrind", action="store_true")
    parser.add_argument("--match", default="")
    args = parser.parse_args()
    if args.valgrind:
        args.build = "release"
    os.chdir(ROOT)
    os.makedirs("build/logs", exist_ok=True)
    strict = bool(os.environ.get("LUNARK_REQUIRE_ALL"))
    only = args.only.split(",")
    if {"unit", "lua"} & set(only) and not os.path.exists(f"build/{args.build}/luarun"):
        variant = "" if args.build == "release" else f" BUILD={args.build}"
        print(f"build/{args.build} has nothing to run\nhint: make{variant} tests, or --build\n0 passed, 1 failed")
        return 1
    passed = failed = skipped = 0
    skips, broken = [], []
    for suite, name, argv in programs(args):
        if suite not in only or args.match not in name:
            continue
        began = time.time()
        status, text = run(argv, f"build/logs/{suite}-{name}.log")
        numbers = count(text)
        p, f, s = numbers or (0, 0, 0)
        if status != 0 and f == 0:
            f = 1  # ended badly without naming a failed test: a crash, a sanitizer's report, a timeout
        if numbers is None and status == 0:
            f = 1
        print(f"{suite:9}{name:32}{p:5} passed {f:3} failed {s:3} skipped {time.time() - began:7.1f} s", flush=True)
        if f:
            broken.append(f"{suite}/{name}")
            print(f"--- {' '.join(argv)} ended with {status}; its output:\n{text[-12000:]}\n---", flush=True)
        for line in skip_lines(text):
            skips.append(f"{suite}/{name}: {line}")
        passed, failed, skipped = passed + p, failed + f, skipped + s
    for line in skips:
        print(f"skipped: {line}")
    if strict and skipped:
        print(f"{skipped} skipped tests count as failed: everything is required here")
        failed += skipped
    if broken:
        print("failed: " + ", ".join(broken))
    if passed + failed == 0:
        print("no test ran")
        failed = 1
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped and not strict else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
