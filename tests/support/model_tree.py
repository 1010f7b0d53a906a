# SPDX-License-Identifier: MIT
"""A small tree with every kind of thing that is edited at random, and what a tree is: for the model test."""
import contextlib
import gzip
import hashlib
import os
import shutil
import stat
import struct
import zlib

import read_index

NAMES = [b"plain", b" lead", b"-dash", b"--checkpoint-action=x", b"back\\slash", b"new\nline", b"tab\t", b"star*", b"[a]?",
         "ünï ☃".encode(), b"not utf8 \xff\xfe", b"x" * 200, b".hidden", b"a.tar.gz", b"trail ", b"~", b"#1", b"%41", b"'q\"",
         b"e\xcc\x81", b"\xc3\xa9", b"CON", b"a:b", b"..x", b"\x01\x7f"]
SIZES = (0, 1, 2, 511, 512, 513, 1000, 4095, 4096, 10000, 40000, 65536, 100000)
MEMBER = 1 << 20
LIMIT = 40  # entries
BIG = 2  # files of more than a member


class Tree:
    """Below `base`; the paths in it are bytes."""

    def __init__(self, base, rng):
        self.base = os.fsencode(base)
        self.root = os.geteuid() == 0
        os.makedirs(self.base)
        for _ in range(25):
            self.edit(rng)

    def entries(self):
        """(path, lstat) of all below the tree, in an order that is always the same."""
        found = []
        for folder, folders, files in os.walk(self.base):
            folders.sort()
            found += [os.path.join(folder, name) for name in sorted(folders + files)]
        return [(path, os.lstat(path)) for path in found]

    def edit(self, rng):
        """One change; what it was."""
        entries = self.entries()
        if len(entries) > LIMIT:
            return self.delete(rng, entries)
        kinds = [self.create] * 5 + [self.folder] * 2 + [self.symlink, self.hard_link, self.fifo, self.sparse, self.big, self.rename,
                                                       self.replace, self.delete, self.delete]
        kinds += [self.modify] * 5 + [self.mode, self.time, self.attribute, self.attribute, self.owner]
        return rng.choice(kinds)(rng, entries)

    # --- what there can be ---

    def pick(self, rng, entries, test):
        found = [path for path, info in entries if test(info.st_mode)]
        return rng.choice(found) if found else None

    def place(self, rng, entries):
        """A name that is free, in any folder."""
        folders = [self.base] + [path for path, info in entries if stat.S_ISDIR(info.st_mode) and path.count(b"/") < 40]
        folder = rng.choice(folders)
        name = rng.choice(NAMES) if rng.random() < 0.5 else b"f%d" % rng.randrange(1000)
        while os.path.lexists(os.path.join(folder, name)):
            name = b"f%d" % rng.randrange(100000)
        return os.path.join(folder, name)

    def data(self, rng, size):
        kind = rng.randrange(4)
        if kind == 0:
            return b"\0" * size
        if kind == 1:
            return (b"line %d of a text that repeats\n" % rng.randrange(9) * (size // 20 + 1))[:size]
        return rng.randbytes(size)

    def write(self, rng, path, data):
        with open(path, "wb") as file:
            file.write(data)
        os.chmod(path, rng.choice((0o600, 0o644, 0o755, 0o440, 0o000, 0o4755, 0o2711)))

    def create(self, rng, entries):
        path = self.place(rng, entries)
        self.write(rng, path, self.data(rng, rng.choice(SIZES)))
        return "create", path

    def big(self, rng, entries):
        if sum(info.st_size > MEMBER for _, info in entries) >= BIG:
            return self.modify(rng, entries)
        path = self.place(rng, entries)
        self.write(rng, path, self.data(rng, MEMBER + rng.choice((1, 511, 4096, 300000))))
        return "big", path

    def sparse(self, rng, entries):
        path = self.place(rng, entries)
        with open(path, "wb") as file:
            for _ in range(rng.randrange(3)):
                file.seek(rng.randrange(8) << 16)
                file.write(rng.randbytes(rng.choice((1, 4096, 5000))))
            file.truncate(rng.choice((0, 4096, 100000, 800000)))
        return "sparse", path

    def folder(self, rng, entries):
        path = self.place(rng, entries)
        os.mkdir(path)
        os.chmod(path, rng.choice((0o700, 0o755, 0o750, 0o1777, 0o2775)))
        return "folder", path

    def symlink(self, rng, entries):
        path = self.place(rng, entries)
        other = self.pick(rng, entries, lambda mode: True) or b"x"
        os.symlink(rng.choice((os.path.basename(other), b"../" + os.path.basename(other), b"nowhere/at all", b"/etc/passwd", b"y" * 300)),
                   path)
        return "symlink", path

    def hard_link(self, rng, entries):
        other = self.pick(rng, entries, lambda mode: not stat.S_ISDIR(mode) and not stat.S_ISLNK(mode))
        if not other:
            return self.create(rng, entries)
        path = self.place(rng, entries)
        os.link(other, path)
        return "hard link", path

    def fifo(self, rng, entries):
        path = self.place(rng, entries)
        os.mkfifo(path, 0o640)
        return "fifo", path

    # --- what becomes of it ---

    def modify(self, rng, entries):
        path = self.pick(rng, entries, stat.S_ISREG)
        if not path:
            return self.create(rng, entries)
        with open(path, "r+b") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(rng.randrange(size + 1))
            if rng.random() < 0.3:
                file.truncate()
            else:
                file.write(rng.randbytes(rng.choice((1, 10, 3000))))
        return "modify", path

    def rename(self, rng, entries):
        path = self.pick(rng, entries, lambda mode: True)
        if not path:
            return self.create(rng, entries)
        to = self.place(rng, [one for one in entries if not (one[0] + b"/").startswith(path + b"/")])
        os.rename(path, to)
        return "rename", path, to

    def delete(self, rng, entries):
        path = self.pick(rng, entries, lambda mode: True)
        if not path:
            return self.create(rng, entries)
        shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
        return "delete", path

    def replace(self, rng, entries):
        """The same name for another kind of thing."""
        _, path = self.delete(rng, entries)[:2]
        if not os.path.lexists(path):
            rng.choice((os.mkdir, lambda at: os.symlink(b"t", at), lambda at: self.write(rng, at, b"r"), os.mkfifo))(path)
        return "replace", path

    def mode(self, rng, entries):
        path = self.pick(rng, entries, lambda mode: not stat.S_ISLNK(mode))
        if path:
            os.chmod(path, rng.choice((0o700, 0o711, 0o1755, 0o777)) if os.path.isdir(path) else rng.randrange(0o10000))
        return "mode", path

    def time(self, rng, entries):
        path = self.pick(rng, entries, lambda mode: True) or self.base
        when = rng.choice((0, -1, -86400 * 365 * 20, 1, 2**31 - 1, 2**31, 2**33, rng.randrange(2 * 10**9)))
        os.utime(path, ns=(0, when * 10**9 + (rng.choice((0, 1, 999_999_999, 123_456_789)) if when != -1 else 0)), follow_symlinks=False)
        return "time", path

    def attribute(self, rng, entries):
        path = self.pick(rng, entries, lambda mode: stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or self.base
        name = b"user." + rng.choice((b"a", b"b.c", "ü".encode(), b"long" * 20))
        if name in [os.fsencode(n) for n in os.listxattr(path)]:
            os.removexattr(path, name)
        else:
            os.setxattr(path, name, rng.choice((b"", b"v", b"\0\xff\n=", b"z" * 900)))
        return "attribute", path

    def owner(self, rng, entries):
        path = self.pick(rng, entries, lambda mode: True)
        if path and self.root:
            os.chown(path, rng.choice((0, 1, 1234, 70000)), rng.choice((0, 7, 70000)), follow_symlinks=False)
        return "owner", path


def snapshot(base):
    """path -> all that a restore brings back, for a comparison with ==. The base itself is b'.'."""
    base, found, links = os.fsencode(base), {}, {}
    paths = [base]
    for folder, folders, files in os.walk(base):
        paths += [os.path.join(folder, name) for name in folders + files]
    for path in sorted(paths):
        s = os.lstat(path)
        entry = {"kind": stat.S_IFMT(s.st_mode), "owner": (s.st_uid, s.st_gid), "time": s.st_mtime_ns}
        if stat.S_ISLNK(s.st_mode):
            entry["target"] = os.readlink(path)
        else:
            entry["mode"] = stat.S_IMODE(s.st_mode)
            entry["xattrs"] = {name: os.getxattr(path, name) for name in os.listxattr(path)}
        if stat.S_ISREG(s.st_mode):
            with open(path, "rb") as file:
                entry["data"] = (s.st_size, hashlib.file_digest(file, "sha256").hexdigest())
        if not stat.S_ISDIR(s.st_mode) and s.st_nlink > 1:
            entry["link"] = links.setdefault(s.st_ino, os.path.relpath(path, base))
        found[os.path.relpath(path, base)] = entry
    return found


def allocated(base):
    """Bytes that the files take on the disk, each once."""
    return sum({info.st_ino: info.st_blocks * 512 for info in
                (os.lstat(os.path.join(folder, name)) for folder, _, files in os.walk(base) for name in files)}.values())


def differences(expected, found, without=()):
    """What is not the same, in words."""
    out = []
    for path in sorted(expected.keys() | found.keys()):
        one, other = expected.get(path), found.get(path)
        if one is None or other is None:
            out.append(f"{path!r}: {'not expected' if one is None else 'missing'}")
            continue
        out += [f"{path!r}: {field} {other.get(field)!r}, {one.get(field)!r} expected" for field in sorted(one.keys() | other.keys())
                if field not in without and one.get(field) != other.get(field)]
    return out


def files_at(data, at, byte):
    """Names of the files of an archive that lie in the member with a byte, if another byte there changes them; else none."""
    try:
        _, _, table, rows = read_index.read(data)
    except (AssertionError, struct.error, zlib.error, IndexError):
        return set()
    for start, size, first, raw in table:
        if start <= at < start + size:
            member = bytearray(data[start:start + size])
            member[at - start:at - start + 1] = byte
            with contextlib.suppress(zlib.error, EOFError, OSError):
                if gzip.decompress(member) == gzip.decompress(data[start:start + size]):
                    return set()
            begins = {row[0]: row[2] for row in table}
            return {os.fsdecode(path) for path, kind, _, of, _, at_data, length, *_ in rows
                    if length and kind == "0" and begins[of] + at_data < first + raw and begins[of] + at_data + length > first}
    return set()
