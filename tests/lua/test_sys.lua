-- SPDX-License-Identifier: MIT
-- lunark.core.sys: errors, secrets, clocks, budgets, capabilities.
local lu = require "luaunit"
local sys = require "lunark.core.sys"
local unistd = require "posix.unistd"

local TestSys = {}

local function caught(fn, ...)
  local ok, err = pcall(fn, ...)
  lu.assertFalse(ok)
  return err
end

function TestSys.test_error_tables()
  local err =
    sys.error { kind = "io", message = "cannot write", hint = "free some space", code = 28, cause = "x" }
  lu.assertEquals(tostring(err), "cannot write (free some space)")
  lu.assertEquals({ err.kind, err.code, err.cause }, { "io", 28, "x" })
  lu.assertTrue(sys.is_error(err))
  lu.assertEquals(tostring(sys.error { kind = "io", message = "m" }), "m")
  for _, other in ipairs { "text", { kind = "io" }, 5 } do
    lu.assertFalse(sys.is_error(other))
  end
  lu.assertFalse(sys.is_error(nil))
  local ok, same = pcall(assert, nil, err)
  lu.assertFalse(ok)
  lu.assertTrue(rawequal(same, err))
end

function TestSys.test_errors_that_are_none()
  lu.assertStrContains(caught(sys.error, { kind = "bad", message = "m" }).message, "'kind' is 'bad'")
  lu.assertStrContains(caught(sys.error, { message = "m" }).message, "'kind' is 'nil'")
  lu.assertStrContains(caught(sys.error, { kind = "io" }).message, "'message' is missing")
  lu.assertStrContains(caught(sys.error, { kind = "io", message = "m", mesage = 1 }).message, "'mesage'")
  lu.assertStrContains(caught(sys.error, "text").message, "expected a table, got string")
end

function TestSys.test_misuse_says_where()
  local err = caught(sys.error)
  lu.assertEquals({ err.kind, err.op }, { "usage", "sys.error" })
  err = caught(function()
    sys.error("x")
  end)
  lu.assertStrContains(err.hint, "called at tests/lua/test_sys.lua:")
end

function TestSys.test_secrets()
  local secret = sys.secret("k3y-of-the-tests")
  lu.assertEquals(tostring(secret), "***")
  lu.assertEquals(("%s"):format(secret), "***")
  lu.assertEquals(secret:reveal(), "k3y-of-the-tests")
  lu.assertEquals(#secret, 16)
  lu.assertTrue(sys.is_secret(secret))
  lu.assertFalse(sys.is_secret("***"))
  lu.assertTrue(secret == sys.secret("k3y-of-the-tests"))
  lu.assertTrue(secret ~= sys.secret("k3y-of-the-tests2"))
  lu.assertTrue(rawequal(sys.secret(secret), secret))
  lu.assertEquals(sys.secret("a\0b"):reveal(), "a\0b")
  lu.assertStrContains(caught(sys.secret, 5).message, "expected a string")
  lu.assertFalse(getmetatable(secret))
end

function TestSys.test_clocks()
  lu.assertTrue(math.abs(sys.clock() - os.time()) <= 2)
  local a = sys.monotonic()
  local b = sys.monotonic()
  lu.assertTrue(b >= a and b - a < 1)
  lu.assertEquals(math.type(a), "float")
end

function TestSys.test_surroundings()
  lu.assertEquals(sys.pid(), unistd.getpid())
  lu.assertEquals(sys.uid(), unistd.geteuid())
  lu.assertTrue(sys.cpus() >= 1)
  local file <close> = assert(io.open("/proc/sys/kernel/hostname"))
  lu.assertEquals(sys.hostname(), file:read("l"))
  lu.assertTrue(sys.columns() > 0)
  lu.assertEquals(sys.isatty(0), unistd.isatty(0) == 1)
  lu.assertStrContains(caught(sys.isatty, 3).message, "descriptor must be 0 to 2, got 3")
  local limit = sys.memory_limit()
  lu.assertTrue(limit == nil or limit > 0)
  lu.assertStrMatches(sys.version, "%d+%.%d+%.%d+.*")
end

function TestSys.test_env()
  lu.assertEquals(sys.env("PATH"), os.getenv("PATH"))
  lu.assertNil(sys.env("LUNARK_TEST_NOT_SET"))
end

function TestSys.test_budget()
  local before = sys.budget()
  lu.assertEquals(before.memory, 40 << 20)
  lu.assertTrue(before.jobs >= 1)
  sys.set_budget { memory = 64 << 20, jobs = 3 }
  lu.assertEquals(sys.budget(), { memory = 64 << 20, jobs = 3 })
  sys.set_budget(before)
  lu.assertStrContains(caught(sys.set_budget, { memory = 1 }).message, "'memory' must be between")
  lu.assertStrContains(caught(sys.set_budget, { jobs = "2" }).message, "'jobs' must be an integer, got str")
  lu.assertStrContains(caught(sys.set_budget, { job = 2 }).message, "unknown option 'job'")
end

function TestSys.test_write()
  lu.assertTrue(sys.write(1, ""))
  lu.assertStrContains(caught(sys.write, 0, "x").message, "descriptor must be 1 to 2")
end

function TestSys.test_write_to_a_pipe_that_nobody_reads()
  local saved = unistd.dup(1)
  local reader, writer = unistd.pipe()
  io.stdout:flush()
  unistd.dup2(writer, 1)
  unistd.close(writer)
  local begun = sys.monotonic()
  local ok, err = sys.write(1, ("x"):rep(1 << 20))
  local passed = sys.monotonic() - begun
  begun = sys.monotonic()
  local again, again_err = sys.write(1, "y")
  local passed_again = sys.monotonic() - begun
  local first = unistd.read(reader, 65536)
  local after = sys.write(1, "z")
  unistd.close(reader)
  local broken, broken_err = sys.write(1, "nobody")
  unistd.dup2(saved, 1)
  unistd.close(saved)
  lu.assertNil(ok)
  lu.assertEquals(err.kind, "io")
  lu.assertStrContains(err.message, "reader stands still")
  lu.assertTrue(passed >= 0.9 and passed < 5, tostring(passed))
  lu.assertNil(again)
  lu.assertStrContains(again_err.message, "1 bytes dropped")
  lu.assertTrue(passed_again < 0.5, tostring(passed_again))
  lu.assertEquals(#first, 65536)
  lu.assertTrue(after, "writes again once it is read")
  lu.assertNil(broken)
  lu.assertStrContains(broken_err.message, "cannot write to descriptor 1: broken pipe")
end

function TestSys.test_check()
  lu.assertTrue(sys.check("exec", "anything"))
  lu.assertTrue(sys.check("read", "/etc"))
  lu.assertEquals(caught(sys.check, "fly", "x").kind, "usage")
end

return { TestSys = TestSys }
