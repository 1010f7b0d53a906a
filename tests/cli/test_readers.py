# SPDX-License-Identifier: MIT
"""What lunark writes is read alike by other tools. Readers: modes, owners and times of a tree. Matrix: each tool with each
kind of archive."""
import glob
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import CACHE, LUNARK, ROOT, Case, describe, environment, make_tree, main  # noqa: E402


class Readers(Case):
    def setUp(self):
        super().setUp()
        self.tree = make_tree(self.path("src"))
        if os.geteuid() == 0:
            os.chown(os.path.join(self.tree, "big.bin"), 12345, 54321)
        self.want = describe(self.tree)

    def archive(self, level="balanced"):
        store = self.path("store-" + level)
        self.lunark("backup", "files", self.tree, "--to", store, "--name", "t", "--compress", level, "--no-latest")
        return glob.glob(store + "/t/t-*.tar.gz")[0]

    def unpack(self, *command, **more):
        into = self.path("into")
        shutil.rmtree(into, ignore_errors=True)
        os.mkdir(into)
        done = subprocess.run(command, cwd=into, stdin=subprocess.DEVNULL, capture_output=True, **more)
        self.assertEqual(0, done.returncode, f"{command}: {done.stderr.decode(errors='replace')}")
        return describe(os.path.join(into, self.tree.lstrip("/")))

    def test_gnu_tar(self):
        for level in ("fast", "balanced", "best", "none", "1", "9"):
            archive = self.archive(level)
            got = self.unpack("tar", "--force-local", "-xpzf", archive)
            self.assertEqual(self.want, got, level)

    def test_gnu_tar_compare(self):
        archive = self.archive()
        done = subprocess.run(["tar", "--force-local", "--compare", "-zf", archive, "-C", "/"], capture_output=True)
        self.assertEqual((0, b""), (done.returncode, done.stdout), done.stderr)

    def test_bsdtar(self):
        self.assertEqual(self.want, self.unpack("bsdtar", "-xpf", self.archive()))

    def test_busybox(self):
        got = self.unpack("busybox", "tar", "-xpzf", self.archive())

        def kept(found):
            """What busybox keeps: times of files in whole seconds, none of directories."""
            return {path: entry[:4] + [n // 10**9 if isinstance(n, int) and n > 10**17 else n
                                       for n in entry[4:] if entry[0] != 4] for path, entry in found.items()}
        self.assertEqual(kept(self.want), kept(got))

    def test_python(self):
        with tarfile.open(self.archive(), "r:gz") as archive:
            members = {m.name.encode(errors="surrogateescape"): m for m in archive.getmembers()}
            prefix = os.fsencode(self.tree.lstrip("/"))
            self.assertEqual({prefix} | {os.path.join(prefix, p) for p in self.want}, set(members))
            for path, entry in self.want.items():
                member = members[os.path.join(prefix, path)]
                if member.isreg():
                    with open(os.path.join(os.fsencode(self.tree), path), "rb") as file:
                        self.assertEqual(file.read(), archive.extractfile(member).read(), path)
                    self.assertEqual(entry[1], member.mode, path)
                    self.assertEqual(entry[2:4], [member.uid, member.gid], path)
                    self.assertAlmostEqual(entry[5] / 10**9, member.mtime, places=5)
            self.assertNotIn("g", {m.type for m in members.values()})


def entries_of(tree):
    """Names as in the archive -> what TarList and the others print of an entry, behind its name."""
    found, first = {}, {}
    tree = os.fsencode(tree)
    paths = [tree] + [os.path.join(folder, name) for folder, folders, files in os.walk(tree) for name in folders + files]
    for path in sorted(paths, key=lambda path: path.replace(b"/", b"\0")):
        name, status = path.lstrip(b"/").hex(), os.lstat(path)
        if os.path.islink(path):
            entry = ("2", os.readlink(path).hex())
        elif os.path.isdir(path):
            entry = ("5", "-")
        elif status.st_nlink > 1 and status.st_ino in first:
            entry = ("1", first[status.st_ino])
        else:
            first[status.st_ino] = name
            with open(path, "rb") as file:
                entry = ("0", hashlib.file_digest(file, "sha256").hexdigest())
        found[name] = entry
    return found


def python_entries(archive):
    found = {}
    # Not the mode "r|gz", which takes an extra field for data until Python 3.14 and knows one member only.
    with tarfile.open(archive, "r:gz", encoding="utf-8", errors="surrogateescape") as tar:
        for entry in tar:
            kind = entry.type.decode()
            rest = "-"
            if entry.isreg():
                rest = hashlib.file_digest(tar.extractfile(entry), "sha256").hexdigest()
            elif kind in "12":
                rest = os.fsencode(entry.linkname).hex()
            found[os.fsencode(entry.name).hex()] = (kind, rest)
    return found


def listed(*command):
    """What a program prints that has lines as TarList has them."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{command}: {done.stderr}")
    lines = (line.split(" ") for line in done.stdout.splitlines())
    return {name: (kind, rest) for kind, name, rest in lines}


class Matrix(Case):
    """ARCHIVES: name -> (path, tree it was made of or None)."""

    @classmethod
    def setUpClass(cls):
        cls.base = tempfile.mkdtemp(prefix="lunark-readers.")
        cls.addClassCleanup(shutil.rmtree, cls.base, True)
        cls.quick = tempfile.mkdtemp(prefix="lunark-readers.", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
        cls.addClassCleanup(shutil.rmtree, cls.quick, True)
        os.chmod(cls.base, 0o755)
        cls.archives, cls.plain = {}, {}
        makers = sorted(name for name in dir(cls) if name.startswith("make_"))
        for maker in makers:
            name = maker[5:]
            tree = os.path.join(cls.quick if name == "many" else cls.base, name)
            os.mkdir(tree)
            if getattr(cls, maker)(tree) is not False:
                cls.archives[name] = (cls.backup(name, tree), tree)
        cls.archives["output"] = (cls.backup_output(), None)
        for name, (archive, _) in cls.archives.items():
            with gzip.open(archive) as file:
                cls.plain[name] = hashlib.file_digest(file, "sha256").hexdigest()

    @classmethod
    def run_lunark(cls, *args):
        done = subprocess.run([LUNARK, *args], env=environment(), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise AssertionError(f"lunark {args}: {done.stderr}")

    @classmethod
    def backup(cls, name, tree):
        store = os.path.join(cls.base, "store")
        cls.run_lunark("backup", "files", tree, "--to", store, "--name", name, "--no-latest")
        return glob.glob(f"{store}/{name}/*.tar.gz")[0]

    @classmethod
    def backup_output(cls):
        out, script = os.path.join(cls.base, "dump.gz"), os.path.join(cls.base, "dump.lua")
        with open(script, "w", encoding="utf-8") as file:
            file.write(f"""
                local exec, store, transfer = require "lunark.exec", require "lunark.store", require "lunark.transfer"
                local dump = exec.stream {{ "seq", "1", "400000" }}
                assert(transfer.upload(dump:gzip {{}}, {{ {{ store = assert(store.open "{cls.base}"), key = "dump.gz" }} }}))""")
        cls.run_lunark("run", "--allow", "exec=seq", "--allow", "read=" + cls.base, "--allow", "write=" + cls.base, script)
        return out

    @staticmethod
    def put(tree, name, data=b""):
        with open(os.path.join(tree, name), "wb") as file:
            file.write(data)

    @classmethod
    def make_empty(cls, tree):
        pass

    @classmethod
    def make_zero(cls, tree):
        cls.put(tree, "nothing in it")

    @classmethod
    def make_long(cls, tree):
        """A path of 4,000 bytes, and one each side of what a header holds."""
        room = 4000 - len(tree.lstrip("/"))
        below = os.path.join(tree, *["n" * 249] * (room // 250))
        os.makedirs(below)
        left = room - 250 * (room // 250) - 1
        cls.put(below, "f" * left, b"far down")
        os.symlink("t" * 4000, os.path.join(tree, "link"))
        for length in (99, 100, 101, 155, 156, 255):
            cls.put(tree, "x" * length, b"%d" % length)

    @classmethod
    def make_unicode(cls, tree):
        for name in ("ünïcode ☃ 🎉", "日本語", "العربية", "\u202egpj"):
            cls.put(tree, name, name.encode())
            os.symlink(name, os.path.join(tree, "l" + name))

    @classmethod
    def make_accents(cls, tree):
        """A letter and its accent, as one character and as two."""
        for name in ("\u00e9", "e\u0301"):
            cls.put(tree, name, name.encode())
            os.symlink(name, os.path.join(tree, "l" + name))

    @classmethod
    def make_bytes(cls, tree):
        for name in (b"latin \xe4\xff", b"new\nline", b"tab\t", b"\x01\x7f", b"back\\slash", b'"quote'):
            cls.put(os.fsencode(tree), name, name)

    @classmethod
    def make_links(cls, tree):
        cls.put(tree, "a", b"linked")
        for name in ("b", "z"):
            os.link(os.path.join(tree, "a"), os.path.join(tree, name))
        os.symlink("a", os.path.join(tree, "s"))
        os.symlink("nowhere/at/all", os.path.join(tree, "t"))
        os.symlink("/absolute", os.path.join(tree, "u"))

    @classmethod
    def make_sparse(cls, tree):
        for name, size in (("holes", 40 << 20), ("hole", 3 << 20)):
            with open(os.path.join(tree, name), "wb") as file:
                file.truncate(size)
                if name == "holes":
                    for at in (0, 5 << 20, 39 << 20):
                        file.seek(at)
                        file.write(b"data at %d" % at)

    @classmethod
    def make_attributes(cls, tree):
        cls.put(tree, "file", b"with attributes")
        try:
            os.setxattr(os.path.join(tree, "file"), "user.note", "ü".encode() + b"\0\n=")
            os.setxattr(tree, "user.large", b"x" * 3000)
        except OSError:
            return False
        subprocess.run(["setfacl", "-m", "u:1234:rx", os.path.join(tree, "file")], check=False, capture_output=True)
        return True

    @classmethod
    def make_many(cls, tree):
        for folder in range(100):
            os.mkdir(os.path.join(tree, str(folder)))
            for number in range(1000):
                cls.put(tree, f"{folder}/{number}", b"%d" % (number * folder))

    # --- the readers ---

    def each(self, read, leave_out=()):
        """read(archive) is what is in the tree, for every archive of a tree. leave_out: names of archives, or names of
        entries as ARCHIVE/NAME."""
        for name, (archive, tree) in self.archives.items():
            if tree and name not in leave_out:
                with self.subTest(name):
                    ends = tuple(f"/{entry}".encode().hex() for entry in leave_out if "/" in entry)
                    wanted, got = ({path: entry for path, entry in entries.items() if not path.endswith(ends)}
                                   for entries in (entries_of(tree), read(archive)))
                    if wanted != got:
                        missing = [path for path in wanted if wanted[path] != got.get(path)]
                        more = [path for path in got if path not in wanted]
                        self.fail(f"{len(missing)} of {len(wanted)} differ, {len(more)} more: {(missing + more)[:3]}")

    def extracted(self, *command):
        """A reader that runs a command in an empty directory."""
        def read(archive):
            into = self.path("into")
            os.mkdir(into)
            try:
                words = [archive if word == "ARCHIVE" else word for word in command]
                done = subprocess.run(words, cwd=into, stdin=subprocess.DEVNULL, capture_output=True, check=False)
                self.assertEqual(0, done.returncode, done.stderr.decode(errors="replace")[-2000:])
                (prefix,) = glob.glob(os.path.join(into, self.base.lstrip("/"), "*"))
                cut = os.fsencode(into).lstrip(b"/").hex() + "2f"
                found = entries_of(prefix).items()
                return {path.removeprefix(cut): (kind, rest.removeprefix(cut)) for path, (kind, rest) in found}
            finally:
                shutil.rmtree(into)
        return read

    def extracts(self, command, contents, leave_out=()):
        """command extracts every archive alike, but for the many files, of which `contents` writes all content to its
        output: looking at them on disk takes longer than the rest."""
        self.each(self.extracted(*command), leave_out=["many", *leave_out])
        archive, tree = self.archives["many"]
        wanted = hashlib.sha256()
        folders = sorted(os.listdir(tree), key=str)
        for folder in folders:
            for name in sorted(os.listdir(os.path.join(tree, folder)), key=str):
                with open(os.path.join(tree, folder, name), "rb") as file:
                    wanted.update(file.read())
        words = [archive if word == "ARCHIVE" else word for word in contents]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
            got = hashlib.file_digest(child.stdout, "sha256").hexdigest()
        self.assertEqual((0, wanted.hexdigest()), (child.returncode, got))

    def test_gnu_tar(self):
        self.extracts(["tar", "--force-local", "-xzf", "ARCHIVE"], ["tar", "--force-local", "-xzOf", "ARCHIVE"])

    def test_bsdtar(self):
        # It composes letters and accents, so two names become one.
        self.extracts(["bsdtar", "-xf", "ARCHIVE"], ["bsdtar", "-xOf", "ARCHIVE"], leave_out=["accents"])

    def test_busybox_tar(self):
        self.extracts(["busybox", "tar", "-xzf", "ARCHIVE"], ["busybox", "tar", "-xzOf", "ARCHIVE"])

    def test_7z(self):
        # Links that lead elsewhere are not made as they are.
        unpack = '7z x -so -tgzip "$0" | 7z x -si -ttar -y '
        self.extracts(["sh", "-c", unpack + "-snld", "ARCHIVE"], ["sh", "-c", unpack + "-so", "ARCHIVE"],
                      leave_out=["links/u"])

    def test_python(self):
        self.each(python_entries)

    def test_go(self):
        if not shutil.which("go"):
            self.skipTest("no Go toolchain here: Go's archive/tar was not tried")
        program = self.path("tarlist")
        env = dict(os.environ, GOCACHE=os.path.join(CACHE, "go-build"), GO111MODULE="off")
        subprocess.run(["go", "build", "-o", program, os.path.join(ROOT, "tests/support/tarlist.go")], env=env, check=True)
        self.each(lambda archive: listed(program, archive))
        for name, (archive, _) in self.archives.items():
            self.assertEqual(self.plain[name], subprocess.check_output([program, archive, "raw"], text=True).strip())

    def java(self, name, *classpath):
        if not shutil.which("javac"):
            self.skipTest("no Java compiler here: Java was not tried")
        path = ":".join([self.path(), *classpath])
        source = os.path.join(ROOT, "tests", "support", name + ".java")
        subprocess.run(["javac", "-cp", path, "-d", self.path(), source], check=True)
        return ["java", "-cp", path, "-Dsun.jnu.encoding=UTF-8", name]

    def test_java(self):
        program = self.java("TarList")
        self.each(lambda archive: listed(*program, archive))
        for name, (archive, _) in self.archives.items():
            self.assertEqual(self.plain[name], subprocess.check_output([*program, archive, "raw"], text=True).strip())

    def test_java_that_does_not_know_what_is_available(self):
        """GZIPInputStream looks for another member only if its input says that there is more: of a stream that never
        says so it may read a part, and take that for all. docs/format.md tells what to do."""
        program = self.java("TarList")
        archive, _ = self.archives["many"]
        done = subprocess.run([*program, archive, "zero"], capture_output=True, text=True, check=True)
        with gzip.open(archive) as file:
            size = sum(map(len, iter(lambda: file.read(1 << 20), b"")))
        self.assertLessEqual(int(done.stdout), size)
        version = subprocess.run(["java", "-version"], capture_output=True, text=True, check=True).stderr.splitlines()[0]
        print(f"{version}: {int(done.stdout)} of {size} bytes", file=sys.stderr)

    def test_commons_compress(self):
        jars = glob.glob(os.path.join(CACHE, "commons-compress-1.28.0", "lib", "*.jar"))
        if not jars:
            self.skipTest("Apache Commons Compress is not here: tests/support/tools.sh, with Maven")
        program = self.java("CommonsList", *jars)
        # Its names are text, so bytes that are none are lost.
        self.each(lambda archive: listed(*program, archive), leave_out=["bytes"])

    def test_a_file_of_more_than_8_gib(self):
        """Its size does not fit the twelve octal digits of a header. Of its zeros a little is read."""
        tree, size = self.path("huge"), (8 << 30) + 1
        os.mkdir(tree)
        self.put(tree, "first", b"1")
        with open(os.path.join(tree, "zeros"), "wb") as file:
            file.truncate(size)
        archive = self.backup("huge", tree)
        with tarfile.open(archive, "r:gz") as tar:
            self.assertEqual([0, 1, size], [tar.next().size for _ in range(3)])
        with open(archive, "rb") as whole, open(self.path("part.tar.gz"), "wb") as part:
            part.write(whole.read(1 << 16))
        for tool in (["tar", "--force-local", "-tvzf"], ["bsdtar", "-tvf"], ["busybox", "tar", "-tvzf"]):
            done = subprocess.run([*tool, self.path("part.tar.gz")], capture_output=True, text=True, check=False)
            self.assertIn(f" {size} ", done.stdout, tool)

    def test_gzip_tools(self):
        tools = (["gzip", "-dc"], ["pigz", "-dc"], ["igzip", "-dc"], ["busybox", "gunzip", "-c"], ["libdeflate-gunzip", "-c"],
                 ["7z", "x", "-so", "-tgzip"], ["bsdcat"])
        for tool in tools:
            for name, (archive, _) in self.archives.items():
                with self.subTest(" ".join(tool) + " " + name):
                    with subprocess.Popen([*tool, archive], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
                        got = hashlib.file_digest(child.stdout, "sha256").hexdigest()
                    self.assertEqual((0, self.plain[name]), (child.returncode, got))
        # igzip -t may say that there is an error where an extra field lies across its buffers, igzip -dc reads it.
        for tool in (["gzip", "-t"], ["pigz", "-t"], ["busybox", "gunzip", "-t"], ["7z", "t"]):
            for name, (archive, _) in self.archives.items():
                with self.subTest(" ".join(tool) + " " + name):
                    done = subprocess.run([*tool, archive], capture_output=True, check=False)
                    self.assertEqual(0, done.returncode, done.stderr)


if __name__ == "__main__":
    main()
