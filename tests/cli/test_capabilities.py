# SPDX-License-Identifier: MIT
"""What a script may do: each kind of right is denied until it is granted, with a message that says what to grant;
and the ways round that a script might try end the same way."""
import glob
import http.server
import os
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import Case, free_port, main  # noqa: E402


class Web(http.server.BaseHTTPRequestHandler):
    """Notes every path that is asked for; /away redirects to self.server.away."""
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append(self.path)
        away = self.path == "/away"
        self.send_response(302 if away else 200)
        if away:
            self.send_header("location", self.server.away)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


class Scripts(Case):
    def setUp(self):
        super().setUp()
        self.secret = self.write("private/secret", "hUsH = = hUsH\n")
        self.open = self.path("open")
        os.mkdir(self.open)
        self.program = self.write("bin/true", "#!/bin/sh\n: > \"$0.ran\"\n", 0o755)

    def web(self):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
        server.asked, server.away = [], ""
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self.addCleanup(lambda: (server.shutdown(), thread.join(), server.server_close()))
        return server

    def run_script(self, text, *allow, status=0, env=None, args=()):
        script = self.write("script.lua", text)
        grants = [word for value in allow for word in ("--allow", value)]
        return self.lunark("run", *grants, script, *args, status=status, env=env, cwd=self.path())

    def denied(self, text, grant, *allow, **more):
        """The script ends with 2, and what it should have been given is named."""
        done = self.run_script(text, *allow, status=2, **more)
        self.assertEqual("", done.stdout)
        self.assertIn("is not allowed", done.stderr)
        self.assertTrue(done.stderr.endswith(f"hint: add --allow {grant}\n"), done.stderr)
        self.assertNotIn("hUsH", done.stderr)

    def untouched(self):
        self.assertEqual([], os.listdir(self.open))
        self.assertEqual(["secret"], os.listdir(self.path("private")))
        with open(self.secret, encoding="ascii") as file:
            self.assertEqual("hUsH = = hUsH\n", file.read())
        self.assertEqual(["true"], os.listdir(self.path("bin")))


class Each(Scripts):
    """The calls that act, without any grant."""

    def test_exec(self):
        for call in ('require("lunark.exec").run { "true" }', 'require("lunark.exec").stream { "true" }',
                     'require("lunark.exec").start { "true" }', 'require("lunark.core.exec").start { "true" }',
                     'require("lunark.exec").which("true")'):
            self.denied(f"assert({call})", "exec=true")
        self.denied('assert(require("lunark.exec").shell("true"))', "exec=/bin/sh")
        self.denied('assert(require("lunark.exec").run { "/bin/true" })', "exec=/bin/true", "exec=true")

    def test_net(self):
        port = free_port()
        for module in ("lunark.http", "lunark.core.http"):
            self.denied(f'assert(require("{module}").request {{ url = "http://127.0.0.1:{port}/" }})',
                        f"net=127.0.0.1:{port}")
        self.denied(f'local store = assert(require("lunark.store").open("s3://bucket/?endpoint=http://127.0.0.1:{port}"))\n'
                    'assert(store:head("x"))', f"net=127.0.0.1:{port}", "env=AWS_*",
                    env={"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"})

    def test_read(self):
        private = self.path("private")
        for call in ('require("lunark.stream").file(path)', 'require("lunark.core.stream").file(path)',
                     'require("lunark.file").open(path, "r")', 'require("lunark.core.file").open(path, "r")',
                     'require("lunark.fs").read_text(path)', 'require("lunark.fs").stat(path)',
                     'require("lunark.fs").lstat(path)', 'require("lunark.fs").readlink(path)',
                     'require("lunark.fs").realpath(path)', 'require("lunark.fs").free(path)',
                     'require("lunark.archive").create { roots = { path } }',
                     'require("lunark.core.archive").create { roots = { path } }',
                     'require("lunark.archive").estimate { roots = { path } }'):
            self.denied(f'local path = "{self.secret}"\nassert({call})', f"read={self.secret}")
        self.denied(f'assert(require("lunark.fs").readdir("{private}"))', f"read={private}")
        self.denied(f'assert(require("lunark.store").open("{private}"):get("secret"))', f"read={self.secret}")

    def test_write(self):
        new = self.path("open/new")
        for call in ('require("lunark.file").open(path, "w")', 'require("lunark.file").open(path, "x")',
                     'require("lunark.core.file").open(path, "w")', 'require("lunark.fs").mkdir(path)',
                     'require("lunark.fs").mkdir_all(path)', 'require("lunark.fs").mkdir_granted(path)',
                     'require("lunark.fs").symlink("x", path)', 'require("lunark.fs").unlink(path)',
                     'require("lunark.fs").rmdir(path)', 'require("lunark.fs").remove_all(path)',
                     'require("lunark.fs").chmod(path, 0)',
                     'require("lunark.archive").extract(require("lunark.stream").of("x"), { into = path })'):
            self.denied(f'local path = "{new}"\nassert({call})', f"write={new}", "read=*")
        for call in ("rename", "link"):
            self.denied(f'assert(require("lunark.fs").{call}("{self.secret}", "{new}"))', f"write={self.secret}",
                        f"write={self.open}")
            self.denied(f'assert(require("lunark.fs").{call}("{self.open}", "{self.secret}"))', f"write={self.secret}",
                        f"write={self.open}")
        self.untouched()

    def test_env(self):
        self.denied('print(require("lunark.core.sys").env("WORD"))', "env=WORD", "env=WORDS", env={"WORD": "hUsH"})
        done = self.run_script('print(require("lunark.core.sys").env("WORD"))', "env=WORD", env={"WORD": "x"})
        self.assertEqual("x\n", done.stdout)

    def test_posix(self):
        for module in ("posix", "posix.unistd", "posix.sys.stat"):
            self.denied(f'print(require("{module}"))', "posix=*", "read=*", "exec=*")
        self.assertTrue(self.run_script('print(require("posix.unistd").getpid())', "posix=*").stdout)


class WaysRound(Scripts):
    def refused(self, text, *allow, says=None, **more):
        """The script does not get to its end, where it would print."""
        done = self.run_script(text + '\nprint("got through")', *allow, status=None, **more)
        self.assertNotEqual(0, done.returncode, text)
        self.assertNotIn("got through", done.stdout)
        self.assertNotIn("hUsH", done.stdout + done.stderr)
        if says:
            self.assertIn(says, done.stderr)
        self.untouched()

    def test_what_lua_has(self):
        for text in ('os.execute("true")', 'os.getenv("HOME")', 'os.remove("x")', 'os.exit(0)', 'os.tmpname()',
                     f'io.open("{self.secret}")', f'io.lines("{self.secret}")', 'io.popen("true")',
                     f'dofile("{self.secret}")', f'loadfile("{self.secret}")', "debug.getregistry()",
                     'package.loadlib("libc.so.6", "*")', 'string.dump(print)', '("").dump(print)',
                     'require("io")', 'require("os")', 'require("debug")', 'require("package")', 'require("ffi")',
                     'require("posix")', 'require("luaunit.x")', 'require("private.secret")',
                     'require("../private/secret")', f'require("{self.secret}")',
                     'assert(load("\\27Lua", "x", "b"))', 'assert(load(function() return nil end, "x", "b")) os.exit()',
                     'getmetatable("").__index.rep = nil', 'getmetatable(require("lunark.core.sys")).__index = nil',
                     'require("lunark.core.sys").check = print', 'setmetatable({}, { __gc = print })',
                     'require("argparse")():parse { "-h" }'):
            self.refused(text)

    def test_bytecode(self):
        # Of a real Lua: what string.dump makes elsewhere.
        self.run_script('local text = require("lunark.fs").read_text(arg[1])\n'
                        'local ok, err = load(text)\nprint(ok, err)', "read=" + self.path(), status=0,
                        args=[self.write("code", b"\x1bLua\x54\x00\x19\x93\r\n\x1a\n")])
        done = self.lunark("run", self.path("code"), status=2)
        self.assertIn("binary chunk", done.stderr)

    def test_granting_and_sealing(self):
        run = 'assert(require("lunark.exec").run { "true" })'
        for text in ('require("lunark.core.sys").allow("exec", "*")', 'require("lunark.policy").allow("exec", "*")',
                     'require("lunark.policy").grant { exec = { "*" } }',
                     f'require("lunark.core.sys").add_script_dir("{self.path("private")}")',
                     f'assert(require("lunark.store").open("{self.open}"):put("k", require("lunark.stream").of("x")))',
                     f'require("lunark.cli").main {{ "run", "{self.secret}" }} {run}',
                     'needs { exec = { "true" } }'):
            self.refused(f"{text}\n{run}")
            self.refused(f"pcall(function() {text} end)\n{run}")

    def test_declared_grants_what_needs_names_and_nothing_else(self):
        run = 'assert(require("lunark.exec").run { "true" })'
        for text in ('require("lunark.core.sys").allow("exec", "*")', 'require("lunark.policy").allow("exec", "*")',
                     'require("lunark.policy").grant { exec = { "*" } }',
                     'needs { exec = { "false" } } needs { exec = { "true" } }',
                     'needs(setmetatable({}, { __pairs = function() require("lunark.core.sys").allow("exec", "*") end }))'):
            self.refused(f"{text}\n{run}", "declared")
            self.refused(f"pcall(function() {text} end)\n{run}", "declared")
        self.refused(f'assert(require("lunark.store").open("{self.open}"):put("k", require("lunark.stream").of("x")))',
                     "declared")
        self.refused(f'assert(require("lunark.backup").open {{ to = {{ "{self.open}" }} }})', "declared")
        self.run_script('needs { exec = { "true" } } ' + run, "declared")

    def test_the_library_reads_nothing_for_a_script(self):
        self.refused('assert(require("lunark.commands").run.run { options = { script = "%s" }, global = {}, args = {} })'
                     % self.secret, says=f"--allow read={self.secret}")
        self.refused(f'assert(require("lunark.scripts").source("../../{self.secret}"))')
        self.refused(f'assert(require("lunark.core.sys").find("../private/secret"))')

    def test_links_and_dots(self):
        os.symlink("../private", self.path("link"))
        grants = ["read=" + self.open, "write=" + self.open, "read=" + self.path("none")]
        self.refused(f'assert(require("lunark.fs").read_text("{self.path("none/../private/secret")}"))', *grants)
        for path in (self.open + "/../private/secret", "link/secret", "/proc/self/cwd/private/secret", "private/secret"):
            self.refused(f'assert(require("lunark.stream").file("{path}"))', *grants, says="not allowed")
            self.refused(f'assert(require("lunark.file").open("{path}", "w"))', *grants, says="not allowed")
            self.refused(f'assert(require("lunark.fs").read_text("{path}"))', *grants, says="not allowed")
            self.refused(f'assert(require("lunark.archive").create {{ roots = {{ "{path}" }} }})', *grants,
                         says="not allowed")

    def test_a_link_itself_wherever_it_leads(self):
        """It is of the folder that it is in: it can be looked at, renamed and removed, what it leads to can't."""
        for name, target in (("out", self.secret), ("long", "y" * 300), ("again", self.path("private"))):
            os.symlink(target, os.path.join(self.open, name))
        os.symlink(self.open, self.path("private", "in"))
        done = self.run_script("""
            local fs, dir, private = require "lunark.fs", arg[1], arg[2]
            print(assert(fs.lstat(dir .. "/out")).type, assert(fs.readlink(dir .. "/long")):sub(1, 3))
            print(fs.stat(dir .. "/out"), fs.lstat(private .. "/in").type, fs.unlink(private .. "/in"))
            print(fs.unlink(dir .. "/out\\0x"), fs.rename(dir .. "/out", private .. "/moved"))
            assert(fs.rename(dir .. "/out", dir .. "/moved"))
            assert(fs.unlink(dir .. "/moved"))
            assert(fs.remove_all(dir))""", f"read={self.open}", f"write={self.open}", args=(self.open, self.path("private")))
        lines = done.stdout.splitlines()
        self.assertEqual("link\tyyy", lines[0])
        self.assertEqual(["nil", "link", "nil"], lines[1].split("\t")[:3])
        self.assertEqual(["nil", "nil"], lines[2].split("\t")[:2])
        self.assertFalse(os.path.exists(self.open))
        self.assertEqual(["in", "secret"], sorted(os.listdir(self.path("private"))))

    def test_a_link_that_the_script_makes_itself(self):
        inside, grants = self.open + "/l", ["read=" + self.open, "write=" + self.open]
        make = ('local fs = require "lunark.fs"\n'
                f'fs.unlink("{inside}")\nassert(fs.symlink("{self.path("private")}", "{inside}"))\n')
        for call in ('require("lunark.stream").file(path)', 'require("lunark.file").open(path, "r")',
                     'require("lunark.file").open(path, "w")', "fs.read_text(path)", "fs.unlink(path)",
                     "fs.chmod(path, 0)", f'fs.rename(path, "{self.open}/x")', f'fs.link(path, "{self.open}/x")',
                     'require("lunark.archive").create { roots = { path } }'):
            done = self.run_script(f'{make}local path = "{inside}/secret"\nassert({call})', *grants, status=2)
            self.assertIn(f"(it is {self.secret})", done.stderr)
            os.unlink(inside)
        done = self.run_script(make + f'local s = require("lunark.archive").create {{ roots = {{ "{self.open}" }} }}\n'
                               'print(assert(s:stream():gunzip():read_all()):find("hUsH"))', *grants)
        self.assertEqual("nil\n", done.stdout)
        os.unlink(inside)
        self.untouched()

    def test_programs(self):
        """A name means what PATH has, whatever the script says to the program."""
        path = self.path("bin")
        for text in (f'assert(require("lunark.exec").run {{ "{self.program}" }})',
                     f'assert(require("lunark.exec").run {{ "./true", cwd = "{path}" }})',
                     f'assert(require("lunark.exec").run {{ "../bin/true", cwd = "{path}" }})',
                     'assert(require("lunark.exec").run { "true\\0x" })', 'assert(require("lunark.exec").run { "TRUE" })',
                     'assert(require("lunark.exec").run { "" })'):
            self.refused(text, "exec=true")
        self.run_script(f'assert(require("lunark.exec").run {{ "true", cwd = "{path}", env = {{ PATH = "{path}" }} }})',
                        "exec=true")
        self.untouched()

    def test_hosts(self):
        server, other = self.web(), self.web()
        server.away = f"http://127.0.0.1:{other.server_port}/"
        here, there = (f"127.0.0.1:{s.server_port}" for s in (server, other))
        request = 'local r = assert(require("lunark.http").request { %s })\n'
        for more in (f'url = "http://{there}/"', f'url = "http://{here}/", proxy = "http://{there}"',
                     f'url = "http://name.invalid:{server.server_port}/"',
                     f'url = "http://{here}/", sign = function(r) r.url = "http://{there}/" return true end',
                     f'url = "http://{here}@{there}/"', f'url = "http://{there}#{here}"',
                     f'url = "http://{here}/", resolve = {{ "{here}:{there.split(":")[0]}2" }}',
                     f'url = "file://{self.secret}"', f'url = "FILE://{self.secret}"', 'url = "ftp://127.0.0.1/"',
                     'url = "gopher://127.0.0.1/"', f'url = "http://{here}/", proxy = "file://{self.secret}"'):
            self.refused(request % more, "net=" + here)
        self.refused(request % f'url = "http://name.invalid:{there[10:]}/", resolve = {{ "name.invalid:{there[10:]}:127.0.0.1" }}',
                     "net=name.invalid", says=f"--allow net={there}")
        done = self.run_script(request % f'url = "http://{here}/away"' + "print(r.status, r.headers.location)", "net=" + here)
        self.assertEqual(f"302\thttp://{there}/\n", done.stdout)
        self.assertEqual((["/away"], []), (server.asked, other.asked))

    def test_handles_keep_their_class(self):
        self.refused('getmetatable(require("lunark.stream").of("x")).__index = nil')
        self.refused('local s = require("lunark.stream").of("x") s.read(io)')
        self.refused('require("lunark.core.stream").of("x").read(require("lunark.core.sys").secret("x"))')


class Policies(Scripts):
    """A policy gets what its needs declare, and the stores."""

    def policy(self, backup, needs=""):
        self.write("mine/policies/p.lua", f"""
return require "lunark.policy" {{
  api = 1, name = "p", summary = "tries", {needs}
  backup = function(job)
    {backup}
    job:save("p", {{ stream = require("lunark.stream").of("got through") }})
  end,
}}
""")
        return self.lunark("backup", "p", "--scripts", self.path("mine"), "--to", self.path("store"), status=None)

    def test_what_is_not_declared(self):
        for backup, grant in (('assert(require("lunark.exec").run { "true" })', "exec=true"),
                              (f'assert(require("lunark.fs").read_text("{self.secret}"))', f"read={self.secret}"),
                              ('require("posix.unistd")', "posix=*")):
            done = self.policy(backup)
            self.assertEqual(2, done.returncode, done.stderr)
            self.assertIn(f"hint: add --allow {grant}\n", done.stderr)
            self.assertEqual([], glob.glob(self.path("store/p/*")))

    def test_a_program_of_save(self):
        done = self.policy('job:save("x", { program = { "true" }, suffix = ".t" })')
        self.assertNotEqual(0, done.returncode)
        self.assertIn("running program true is not allowed", done.stderr)
        self.assertEqual([], glob.glob(self.path("store/x/*")))

    def test_what_is_declared(self):
        done = self.policy('assert(require("lunark.exec").run { "true" })', 'needs = { exec = { "true" } },')
        self.assertEqual(0, done.returncode, done.stderr)

    def test_granting(self):
        done = self.policy('require("lunark.core.sys").allow("exec", "*")')
        self.assertNotEqual(0, done.returncode)
        self.assertEqual([], glob.glob(self.path("store/p/*")))


if __name__ == "__main__":
    main()
