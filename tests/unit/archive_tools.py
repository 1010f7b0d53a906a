#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the tests of archives compare with: a view of trees and tar files that owes nothing to lunark.

  tree DIR NAME      one line for each entry below DIR, as member NAME/...
  tar FILE           the same lines from a tar file, by Python's tarfile
  make DIR           a tree with everything that an archive can hold
  deep DIR           600 directories in each other, a file "zz" in each
  check-deep DIR     fails if DIR is not such a tree
  list-deep FILE     fails if the tar file does not hold such a tree, as "tree", in order
  hostile KIND FILE  a tar file that tries to leave its target
"""
import hashlib
import io
import os
import stat
import sys
import tarfile


def line(name, kind, mode, uid, gid, mtime_ns, size, detail):
    return "%r %s %04o %d %d %d %d %s" % (name, kind, mode, uid, gid, mtime_ns, size, detail)


def tree(top, name):
    """Links to one file: the first in the order of names is the file."""
    seen = {}
    out = []

    def visit(path, member):
        st = os.lstat(path)
        common = (stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, st.st_mtime_ns)
        key = (st.st_dev, st.st_ino)
        if stat.S_ISDIR(st.st_mode):
            out.append(line(member, "dir", *common, 0, ""))
            for entry in sorted(os.listdir(path)):
                visit(os.path.join(path, entry), member + b"/" + entry)
        elif stat.S_ISSOCK(st.st_mode):
            pass
        elif st.st_nlink > 1 and key in seen:
            out.append(line(member, "link", *common, 0, repr(seen[key])))
        else:
            seen[key] = member
            if stat.S_ISLNK(st.st_mode):
                out.append(line(member, "symlink", *common, 0, repr(os.readlink(path))))
            elif stat.S_ISREG(st.st_mode):
                with open(path, "rb") as file:
                    digest = hashlib.sha256(file.read()).hexdigest()
                out.append(line(member, "file", *common, st.st_size, digest))
            elif stat.S_ISFIFO(st.st_mode):
                out.append(line(member, "fifo", *common, 0, ""))
            else:
                rdev = "%d:%d" % (os.major(st.st_rdev), os.minor(st.st_rdev))
                out.append(line(member, "device", *common, 0, rdev))

    visit(top, name)
    return out


def nanoseconds(member):
    text = member.pax_headers.get("mtime")
    if text is None:
        return int(member.mtime) * 10**9
    sign = -1 if text.startswith("-") else 1
    whole, _, fraction = text.lstrip("-").partition(".")
    return sign * (int(whole) * 10**9 + int(fraction.ljust(9, "0") or "0"))


def tar(file):
    out = []
    with tarfile.open(file, "r:", errors="surrogateescape", encoding="utf-8") as archive:
        for member in archive:
            name = os.fsencode(member.name)
            link = os.fsencode(member.linkname)
            common = (member.mode, member.uid, member.gid, nanoseconds(member))
            if member.isdir():
                out.append(line(name, "dir", *common, 0, ""))
            elif member.islnk():
                out.append(line(name, "link", *common, 0, repr(link)))
            elif member.issym():
                out.append(line(name, "symlink", *common, 0, repr(link)))
            elif member.isfifo():
                out.append(line(name, "fifo", *common, 0, ""))
            elif member.isdev():
                out.append(line(name, "device", *common, 0, "%d:%d" % (member.devmajor, member.devminor)))
            else:
                digest = hashlib.sha256(archive.extractfile(member).read()).hexdigest()
                out.append(line(name, "file", *common, member.size, digest))
    return out


def make(top):
    join = os.path.join

    def put(path, data=b"", mode=0o644, mtime=1700000000123456789):
        with open(path, "wb") as file:
            file.write(data)
        os.chmod(path, mode)
        os.utime(path, ns=(mtime, mtime))

    os.mkdir(top)
    put(join(top, b"plain"), b"hello\n")
    put(join(top, b"whole second"), b"x", mtime=1700000000 * 10**9)
    put(join(top, b"before 1970"), b"x", mtime=-86400 * 10**9)
    put(join(top, b"far future"), b"x", mtime=(1 << 33) * 10**9 + 1)
    put(join(top, b"empty"))
    put(join(top, b"modes"), b"x", 0o4751)
    put(join(top, b"block"), b"b" * 512)
    put(join(top, b"large"), os.urandom(3 << 20) + b"end")
    put(join(top, b"member"), b"m" * ((1 << 20) - 1024))
    put(join(top, "\u00fcn\u00efcode \u65e5\u672c \U0001f600".encode()), b"utf-8")
    put(join(top, b"latin1 \xe9\xff"), b"not utf-8")
    put(join(top, b"new\nline \\ \" * ? [x]"), b"special")
    put(join(top, b" -rf"), b"dash")
    put(join(top, b"\x01\x7f"), b"control")
    os.mkdir(join(top, b"d" * 255))
    put(join(top, b"d" * 255, b"f" * 255), b"long")
    put(join(top, b"d" * 255, b"\xc3\xa4" * 127), b"long utf-8")
    os.mkdir(join(top, b"p" * 90))
    put(join(top, b"p" * 90, b"q" * 90), b"splits into prefix and name")
    os.mkdir(join(top, b"s" * 99))
    os.mkdir(join(top, b"s" * 99, b"empty dir"))
    os.symlink(b"plain", join(top, b"symlink"))
    os.symlink(b"t" * 1000, join(top, b"symlink long"))
    os.symlink(b"\xff\xfe", join(top, b"symlink bytes"))
    os.symlink(b"../../outside", join(top, b"symlink out"))
    os.link(join(top, b"plain"), join(top, b"zz link"))
    os.link(join(top, b"d" * 255, b"f" * 255), join(top, b"zz link long"))
    os.link(join(top, b"symlink"), join(top, b"zz link to symlink"))
    os.mkfifo(join(top, b"fifo"), 0o640)
    if os.getuid() == 0:
        os.mknod(join(top, b"null"), stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(join(top, b"disk"), stat.S_IFBLK | 0o600, os.makedev(259, 70000))
        os.chown(join(top, b"empty"), 12345, 3000000)
        os.chown(join(top, b"symlink"), 12345, 54321, follow_symlinks=False)
    with open(join(top, b"sparse"), "wb") as file:
        file.truncate(5 << 20)
        file.seek(2 << 20)
        file.write(b"data in the middle")
    os.mkdir(join(top, b"read-only"))
    put(join(top, b"read-only", b"file"), b"x", 0o400)
    os.chmod(join(top, b"read-only"), 0o555)
    os.utime(top, ns=(1600000000000000001, 1600000000000000001))


LEVELS = ["level %03d 4567" % i for i in range(600)]


def deep(top):
    os.mkdir(top)
    os.chdir(top)
    for i, name in enumerate(LEVELS):
        os.mkdir(name)
        with open("zz", "w") as file:
            file.write(str(i))
        os.utime("zz", ns=(5, i))
        os.chdir(name)


def check_deep(top):
    os.chdir(top)
    for i, name in enumerate(LEVELS):
        with open("zz") as file:
            assert file.read() == str(i)
        assert os.stat("zz").st_mtime_ns == i
        os.chdir(name)


def list_deep(file):
    path, directories, files = "tree", ["tree"], []
    for name in LEVELS:
        files.append(path + "/zz")
        path += "/" + name
        directories.append(path)
    assert len(path) > 5000
    with tarfile.open(file) as archive:
        assert archive.getnames() == directories + files[::-1]


def hostile(kind, file):
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as archive:

        def add(name, kind=tarfile.REGTYPE, link="", data=b""):
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, link, len(data)
            archive.addfile(member, io.BytesIO(data))

        add("before", data=b"fine")
        if kind == "dotdot":
            add("a/../../evil", data=b"evil")
        elif kind == "absolute":
            add("/tmp/lunark-evil", data=b"evil")
        elif kind == "symlink":
            add("way", tarfile.SYMTYPE, "..")
            add("way/evil", data=b"evil")
        elif kind == "symlink-chain":
            add("one", tarfile.SYMTYPE, ".")
            add("two", tarfile.SYMTYPE, "one/..")
            add("two/evil", data=b"evil")
        elif kind == "hardlink-dotdot":
            add("link", tarfile.LNKTYPE, "../secret")
        elif kind == "hardlink-absolute":
            add("link", tarfile.LNKTYPE, "/etc/passwd")
        elif kind == "hardlink-symlink":
            add("way", tarfile.SYMTYPE, "..")
            add("link", tarfile.LNKTYPE, "way/secret")
        elif kind == "symlink-replaced":
            add("way", tarfile.SYMTYPE, "../secret")
            add("way", data=b"evil")
        elif kind == "dir-over-symlink":
            add("way", tarfile.SYMTYPE, "..")
            add("way", tarfile.DIRTYPE)
            add("way/evil", data=b"evil")
        else:
            sys.exit("unknown kind " + kind)


def bomb(mib, file):
    """A file of one letter, as small as gzip makes it."""
    with tarfile.open(file, "w:gz") as archive:
        member = tarfile.TarInfo("big")
        member.size = mib << 20
        archive.addfile(member, Letters(member.size))


class Letters(io.RawIOBase):
    def __init__(self, size):
        super().__init__()
        self.left = size

    def read(self, size=-1):
        size = min(size, self.left)
        self.left -= size
        return b"a" * size


def main():
    command, *args = [os.fsencode(arg) for arg in sys.argv[1:]]
    if command == b"tree":
        print("\n".join(tree(*args)))
    elif command == b"tar":
        print("\n".join(tar(os.fsdecode(args[0]))))
    elif command == b"make":
        make(args[0])
    elif command == b"deep":
        deep(args[0])
    elif command == b"check-deep":
        check_deep(args[0])
    elif command == b"list-deep":
        list_deep(os.fsdecode(args[0]))
    elif command == b"hostile":
        hostile(os.fsdecode(args[0]), os.fsdecode(args[1]))
    elif command == b"bomb":
        bomb(int(args[0]), os.fsdecode(args[1]))
    else:
        sys.exit(__doc__)


main()
