# SPDX-License-Identifier: MIT
"""The container file, the entry points and the systemd units, as far as they can be checked without a container tool."""
import glob
import os
import re
import shutil
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import LUNARK, ROOT, Case, main  # noqa: E402

CONTAINER = os.path.join(ROOT, "deploy", "container")
SYSTEMD = os.path.join(ROOT, "deploy", "systemd")


def read(*names):
    with open(os.path.join(*names), encoding="utf-8") as file:
        return file.read()


def instructions():
    """(word, rest) of each instruction, lines that go on put together."""
    text = re.sub(r"^\s*#.*\n", "", read(CONTAINER, "Containerfile"), flags=re.M).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def stages():
    found, last = {}, None
    for word, rest in instructions():
        if word == "FROM":
            last = rest.split(" AS ")[1]
            found[last] = [("FROM", rest.split(" AS ")[0])]
        elif last:
            found[last].append((word, rest))
    return found


class Container(unittest.TestCase):
    def test_targets(self):
        made = stages()
        self.assertEqual(["neo4j", "build", "base", "restore", "backup"], list(made), "without --target: backup")
        self.assertEqual([("FROM", "base"), ("CMD", '["/scripts/restore.sh"]')], made["restore"])
        self.assertEqual([("FROM", "base"), ("USER", "7474:7474"), ("CMD", '["/scripts/backup.sh"]')], made["backup"])
        arguments = dict(rest.split("=") for word, rest in instructions() if word == "ARG")
        self.assertEqual({"DEBIAN_IMAGE", "NEO4J_IMAGE"}, set(arguments))
        for image in arguments.values():
            self.assertRegex(image, r"^[a-z0-9]+:[\w.-]+$", "a tag, no latest, no host")
            self.assertNotIn("latest", image)

    def test_sources_are_there(self):
        for stage in stages().values():
            for word, rest in stage:
                self.assertNotEqual("ADD", word)
                if word == "COPY" and "--from" not in rest:
                    for source in rest.split()[:-1]:
                        self.assertTrue(os.path.exists(os.path.join(ROOT, source)), source)
                for other in re.findall(r"--from=(\S+)", rest):
                    self.assertIn(other, stages())
        build = " ".join(rest for word, rest in stages()["build"] if word == "RUN")
        for path in re.findall(r"deploy/\S+", build):
            self.assertTrue(os.access(os.path.join(ROOT, path), os.X_OK), path)
        ignored = read(CONTAINER, "Containerfile.dockerignore").split("\n")
        self.assertFalse({"deploy", "runtime", "scripts", "providers", "bootstrap", "Makefile"} & set(ignored))

    def test_shell_of_the_build(self):
        for stage in stages().values():
            for word, rest in stage:
                if word == "RUN":
                    subprocess.run(["sh", "-n", "-c", rest], check=True)
                    if "apt-get install" in rest:
                        self.assertIn("--no-install-recommends", rest)
                        self.assertIn("rm -rf /var/lib/apt/lists/*", rest)

    def test_the_image_has_what_is_linked_and_loaded(self):
        """Packages of the base: one for each library that is linked, one for each Lua module."""
        base = " ".join(rest for word, rest in stages()["base"] if word == "RUN")
        linked = subprocess.run(["readelf", "-d", os.path.join(os.path.dirname(LUNARK), "liblunark.so")], check=True, text=True,
                                stdout=subprocess.PIPE).stdout
        for name in re.findall(r"NEEDED.*\[lib([\w.-]+)\.so", linked):
            if name not in ("c", "m", "dl", "pthread"):
                self.assertIn({"lua5.4": "liblua5.4-0", "curl": "libcurl4", "crypto": "libssl3", "z": "zlib1g"}
                              .get(name, "lib" + name), base)
        modules = {"cjson": "lua-cjson", "lxp": "lua-expat", "argparse": "lua-argparse", "posix": "lua-posix"}
        for path in glob.glob(os.path.join(ROOT, "scripts", "**", "*.lua"), recursive=True) + glob.glob(
                os.path.join(ROOT, "providers", "**", "*.lua"), recursive=True):
            for name in re.findall(r"""require[ (]["']([\w.]+)["']""", read(path)):
                name = name.split(".")[0]
                if name not in ("lunark", "policies", "providers"):
                    self.assertIn(modules[name], base)


class Installed(Case):
    def test_the_program_runs_from_its_place_in_the_image(self):
        """What the build puts into the image, without the sources: the link of the entry point finds its library."""
        subprocess.run(["make", "-s", "install", "PREFIX=/usr", f"DESTDIR={self.path('root')}"], cwd=ROOT, check=True,
                       stdout=subprocess.DEVNULL)
        os.makedirs(self.path("root/usr/lib/lunark/scripts"))
        os.symlink(self.path("root/usr/bin/lunark"), self.path("root/usr/lib/lunark/scripts/backup.sh"))
        out = subprocess.run([self.path("root/usr/lib/lunark/scripts/backup.sh"), "backup", "neo4j", "--help"], check=True,
                             env={"PATH": "/usr/bin:/bin"}, stdout=subprocess.PIPE, text=True).stdout
        self.assertIn("NEO4J_ADDR", out)

    def test_entry_points(self):
        for path in glob.glob(os.path.join(ROOT, "deploy", "scripts", "*.sh")):
            subprocess.run(["sh", "-n", path], check=True)
            self.assertTrue(os.access(path, os.X_OK))
        self.write("bin/lunark", "#!/bin/sh\nprintf '%s\\n' \"$@\"\n", 0o755)
        env = {"PATH": self.path("bin") + ":/usr/bin:/bin", "DATA_DIR": self.path()}
        out = subprocess.run([os.path.join(ROOT, "deploy/scripts/restore.sh"), "--at", "latest"], env=env, check=True, text=True,
                             stdout=subprocess.PIPE).stdout
        self.assertEqual(["restore", "neo4j", "--data-dir", self.path(), "--skip-existing", "--once", "--log-to", "stdout",
                          "--at", "latest"], out.split("\n")[:-1])


class Units(Case):
    @unittest.skipUnless(shutil.which("systemd-analyze"), "no systemd-analyze here")
    def test_verify(self):
        for name in ("lunark-neo4j.service", "lunark-neo4j.timer"):
            text = read(SYSTEMD, name).replace("/usr/local/bin/lunark", LUNARK)
            self.write(f"units/{name}", text.replace("#LoadCredential", "LoadCredential"))
        out = subprocess.run(["systemd-analyze", "verify", "--man=no", "--recursive-errors=no",
                              *sorted(glob.glob(self.path("units/*")))], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             text=True, timeout=60)
        self.assertEqual((0, ""), (out.returncode, out.stdout))

    def test_environment_file(self):
        text = read(SYSTEMD, "neo4j.env")
        self.assertIn("/etc/lunark/neo4j.env", read(SYSTEMD, "lunark-neo4j.service"))
        out = self.lunark("backup", "neo4j", "--help").stdout
        for name in re.findall(r"^#?([A-Z0-9_]+)=", text, re.M):
            if name not in ("CLOUD_PROVIDER", "BUCKET", "AWS_REGION"):
                self.assertIn(name, out)


if __name__ == "__main__":
    main()
