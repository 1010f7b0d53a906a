# SPDX-License-Identifier: MIT
"""Builds the stages of a container file without a container tool: each is a stack of folders (overlayfs), RUN is chroot in
name spaces of its own. Needs root, and a parser of container files; an instruction that is not known here is an error."""
import json
import os
import re
import shutil
import subprocess


class Stage:
    def __init__(self, layers):
        self.layers, self.env, self.workdir, self.user, self.cmd = list(layers), {}, "/", "0:0", None


class Builder:
    """python: one that has the parser. images: what FROM may name that is no stage, each a list of folders, the lowest
    first. Everything that is made is below `folder`."""

    def __init__(self, python, path, context, folder, images):
        self.context, self.folder, self.images = context, folder, images
        self.stages, self.arguments, self.count = {}, {}, 0
        with open(path + ".dockerignore", encoding="utf-8") as file:
            self.ignored = [line.replace("**/", "") for line in file.read().splitlines() if line and line[0] != "#"]
        read = ("import json, sys, dockerfile_parse as d; json.dump(d.DockerfileParser(fileobj=open(sys.argv[1], 'rb')).structure, sys.stdout)")
        out = subprocess.run([python, "-c", read, path], stdout=subprocess.PIPE, check=True, text=True).stdout
        self.steps = [(one["instruction"], one["value"]) for one in json.loads(out) if one["instruction"] != "COMMENT"]

    def mounted(self, stage, command, more="", **how):
        """Runs a line of shell where "$1" is the stage's root; what it writes is a new layer. `more`: lower layers of another
        stage, to be seen at "$2"."""
        self.count += 1
        base = os.path.join(self.folder, str(self.count))
        for name in ("upper", "work", "root", "other"):
            os.makedirs(os.path.join(base, name))
        script = (f"mount -t overlay -o lowerdir={':'.join(reversed(stage.layers))},upperdir={base}/upper,workdir={base}/work "
                  f"overlay {base}/root; {more.format(base=base)}"
                  "mount -t proc proc $1/proc; mount --rbind /dev $1/dev; "
                  "for f in resolv.conf hosts; do touch $1/etc/$f; mount --bind /etc/$f $1/etc/$f; done; " + command)
        done = subprocess.run(["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", script, "sh", f"{base}/root",
                               f"{base}/other"], stdin=subprocess.DEVNULL, text=True, stderr=subprocess.STDOUT,
                              stdout=subprocess.PIPE, **how)
        return done, f"{base}/upper"

    def add(self, stage, command, **how):
        done, layer = self.mounted(stage, command, **how)
        if done.returncode:
            raise AssertionError(f"{command}\n{done.stdout[-3000:]}")
        stage.layers.append(layer)
        return done.stdout

    @staticmethod
    def chroot(stage, words, env=None):
        """The line of shell that runs words in the stage, as its instructions say."""
        values = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **stage.env, **(env or {})}
        shown = " ".join(quote(f"{k}={v}") for k, v in values.items())
        inside = f"cd {quote(stage.workdir)} && exec {' '.join(map(quote, words))}"
        return f"exec chroot --userspec={stage.user} --groups= $1 env -i {shown} /bin/sh -c {quote(inside)}"

    def build(self, *targets):
        stage = None
        for word, rest in self.steps:
            if word == "ARG":
                name, _, default = rest.partition("=")
                self.arguments[name] = default
            elif word == "FROM":
                stage = self.begin(*re.fullmatch(r"(\S+) AS (\S+)", rest).groups())
            else:
                getattr(self, "do_" + word.lower())(stage, rest)
        return [self.stages[name] for name in targets]

    def begin(self, image, name):
        image = re.sub(r"\$\{(\w+)\}", lambda found: self.arguments[found.group(1)], image)
        if image in self.stages:
            parent = self.stages[image]
            stage = Stage(parent.layers)
            stage.env, stage.workdir, stage.user = dict(parent.env), parent.workdir, parent.user
        else:
            stage = Stage(self.images[image])
        self.stages[name] = stage
        return stage

    def do_user(self, stage, rest):
        stage.user = rest if ":" in rest else f"{rest}:0"

    def do_workdir(self, stage, rest):
        stage.workdir = rest
        self.add(stage, f"mkdir -p $1{rest}")

    def do_env(self, stage, rest):
        stage.env.update(pair.split("=", 1) for pair in rest.split())

    def do_cmd(self, stage, rest):
        stage.cmd = json.loads(rest)

    def do_run(self, stage, rest):
        self.add(stage, self.chroot(stage, ["/bin/sh", "-c", rest]))

    def do_copy(self, stage, rest):
        words = rest.split()
        if words[0].startswith("--from="):
            other = self.stages[words.pop(0).split("=")[1]]
            more = f"mount -t overlay -o lowerdir={':'.join(reversed(other.layers))} overlay {{base}}/other; "
            (source, to) = words
            content = source if source.endswith("/") else source + "/"
            self.add(stage, f"mkdir -p $1{to} && cp -a --no-preserve=ownership $2{content}. $1{to}", more=more)
        else:
            if words != [".", "."]:
                raise AssertionError(f"COPY {rest}")
            shutil.copytree(self.context, os.path.join(self.folder, "context"), symlinks=True,
                            ignore=shutil.ignore_patterns(*self.ignored))
            self.add(stage, f"cp -a --no-preserve=ownership {self.folder}/context/. $1{stage.workdir}")


def quote(text):
    return "'" + str(text).replace("'", "'\\''") + "'"
