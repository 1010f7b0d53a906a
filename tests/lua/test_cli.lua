-- SPDX-License-Identifier: MIT
-- lunark.commandline and lunark.exit: reading words, help, and exit statuses.

local commandline = require "lunark.commandline"
local exit = require "lunark.exit"
local lu = require "luaunit"
local sys = require "lunark.core.sys"

local TestCommandline = {}

local DECLARED = {
  name = { "string", short = "n", help = "a name" },
  size = { "size", default = "1M", help = "a size" },
  list = { "list", env = "LUNARK_TEST_LIST_OF_THE_COMMAND_LINE", help = "commas" },
  exclude = { "list", repeated = true, metavar = "PATTERN", help = "many" },
  quiet = { "boolean", help = "say less" },
  latest = { "boolean", default = true, help = "move it" },
  need = { "string", required = true, help = "needed" },
  path = { "list", positional = true, required = true, metavar = "PATH", help = "paths" },
}
local GROUPS = { { "Options", DECLARED } }

local function parse(...)
  local parser = commandline.parser("lunark test", "what it does", GROUPS)
  local values, err = commandline.parse(parser, GROUPS, { ... }, "lunark test")
  return values and values[1], err
end

local function refused(message, hint, ...)
  local values, err = parse(...)
  lu.assertNil(values)
  lu.assertEquals(err.kind, "usage")
  lu.assertStrContains(err.message, message)
  if hint then
    lu.assertStrContains(err.hint, hint)
  end
end

function TestCommandline.test_values()
  local values = assert(parse("--need", "x", "a", "-n", "me", "--size=2K", "--list", "p, q", "b"))
  lu.assertEquals(values.need, "x")
  lu.assertEquals(values.name, "me")
  lu.assertEquals(values.size, 2048)
  lu.assertEquals(values.list, { "p", "q" })
  lu.assertEquals(values.path, { "a", "b" })
  lu.assertEquals(values.latest, true)
  lu.assertNil(values.quiet)
end

function TestCommandline.test_repeated_values_keep_their_commas()
  local values = assert(parse("--need=x", "--exclude", "a,b", "p,q", "--exclude=*.{c,d}"))
  lu.assertEquals(values.exclude, { "a,b", "*.{c,d}" })
  lu.assertEquals(values.path, { "p,q" })
end

function TestCommandline.test_booleans_have_three_forms()
  for word, expected in pairs {
    ["--latest"] = true, ["--no-latest"] = false, ["--latest=false"] = false, ["--latest=YES"] = true,
    ["--latest=0"] = false, ["--no-latest=false"] = nil,
  } do
    lu.assertEquals(parse("--need=x", word, "p").latest, expected, word)
  end
  refused("option '--latest' is true or false, found 'maybe'", nil, "--need=x", "--latest=maybe", "p")
end

function TestCommandline.test_words_behind_two_dashes_are_no_options()
  lu.assertEquals(parse("--need=x", "--", "--quiet", "-n").path, { "--quiet", "-n" })
end

function TestCommandline.test_what_is_wrong()
  refused("missing argument 'PATH'", "lunark test --help", "--need=x")
  refused("--need is missing", nil, "p")
  refused("unknown option '--sizes'", "did you mean '--size'?", "--need=x", "p", "--sizes", "1")
  refused("--size: '1Q' is not what is expected", nil, "--need=x", "p", "--size", "1Q")
  refused("requires an argument", nil, "p", "--need")
end

function TestCommandline.test_help_names_every_option()
  local help = commandline.parser("lunark test", "what it does", GROUPS, "The end."):get_help()
  lu.assertEquals(help:match("^[^\n]*"), "Usage: lunark test [options] --need NEED PATH...")
  for _, part in ipairs {
    "What it does.", "\n   PATH ", "-n NAME", "--size SIZE", "default: 1M",
    "--exclude PATTERN", "--no-latest", "don't move it", "environment: LUNARK_TEST_LIST", "The end.",
  } do
    lu.assertStrContains(help, part)
  end
end

function TestCommandline.test_scan_finds_the_words_and_leaves_the_rest()
  local words = { "--name", "x", "run", "--quiet", "script", "--name", "y", "-h" }
  local scan = commandline.scan(words, DECLARED, 2)
  lu.assertEquals(scan.words, { "run", "script" })
  lu.assertEquals(scan.before, { "--name", "x", "--quiet" })
  lu.assertEquals(scan.rest, { "--name", "y", "-h" })
  lu.assertFalse(scan.help)
  lu.assertTrue(commandline.scan({ "run", "-h" }, DECLARED, 2).help)
  lu.assertFalse(commandline.scan({ "run", "--name", "-h", "x" }, DECLARED, 2).help)
  words = { "--exclude", "a", "x", "--exclude=b", "--", "--exclude", "c" }
  lu.assertEquals(commandline.values(words, "exclude"), { "a", "b" })
end

local TestExit = {}

local function of(...)
  local failures = {}
  for i, kind in ipairs { ... } do
    failures[i] = sys.error { kind = kind, message = kind }
  end
  return failures
end

function TestExit.test_one_error()
  for kind, status in pairs {
    usage = 2, denied = 2, auth = 3, network = 3, timeout = 3, throttled = 3, corrupt = 4, io = 1, exit = 1,
    not_found = 1, conflict = 1, memory = 1,
  } do
    lu.assertEquals(exit.combine(of(kind), false), status, kind)
  end
  lu.assertEquals(exit.of("text"), 1)
  lu.assertEquals(exit.of(sys.error { kind = "denied", message = "EACCES", code = 13 }), 1)
  lu.assertEquals(exit.of(exit.with(sys.error { kind = "io", message = "x" }, 3)), 3)
end

function TestExit.test_several_errors()
  lu.assertEquals(exit.combine(of("network", "auth"), false), 3)
  lu.assertEquals(exit.combine(of("network", "auth"), true), 1)
  lu.assertEquals(exit.combine(of("network", "io"), false), 1)
  lu.assertEquals(exit.combine(of("network", "usage"), false), 1)
  lu.assertEquals(exit.combine(of("io", "corrupt"), true), 4)
  local late = exit.with(sys.error { kind = "timeout", message = "late" }, exit.TIMEOUT)
  lu.assertEquals(exit.combine({ sys.error { kind = "corrupt", message = "x" }, late }, true), 124)
end

return { TestCommandline = TestCommandline, TestExit = TestExit }
