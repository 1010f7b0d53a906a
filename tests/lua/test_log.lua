-- SPDX-License-Identifier: MIT
-- lunark.log: levels, fields, formats, secrets. Lines are read back from a file in place of standard error.
local lu = require "luaunit"
local cjson = require "cjson"
local core = require "lunark.core.log"
local log = require "lunark.log"
local sys = require "lunark.core.sys"
local fcntl = require "posix.fcntl"
local unistd = require "posix.unistd"

local TestLog = {}

-- What fn logs, as lines.
local function lines_of(fn, settings)
  local path = os.tmpname()
  local fd = assert(fcntl.open(path, fcntl.O_RDWR | fcntl.O_TRUNC))
  local saved = unistd.dup(2)
  unistd.dup2(fd, 2)
  unistd.close(fd)
  log.set(settings or { to = 2, level = "debug", format = "text" })
  local ok, err = pcall(fn)
  log.set { to = "host", level = "info", format = "text" }
  unistd.dup2(saved, 2)
  unistd.close(saved)
  local lines = {}
  for line in io.lines(path) do
    if not line:find("^log %d: ") then -- what luarun prints as the host
      lines[#lines + 1] = line
    end
  end
  os.remove(path)
  assert(ok, err)
  return lines
end

function TestLog.test_text()
  local lines = lines_of(function()
    log.info("started", { item = "neo4j", key = "a/b" })
    log.with({ item = "x" }).with({ run = 7 }).warn("slow")
    log.debug(42)
    log.error(sys.error { kind = "io", message = "broken", hint = "mend it" })
  end)
  lu.assertEquals(#lines, 4)
  lu.assertStrMatches(lines[1], "%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%dZ info .*started.*")
  lu.assertStrContains(lines[1], "item=neo4j")
  lu.assertStrContains(lines[1], "key=a/b")
  lu.assertStrContains(lines[2], "item=x")
  lu.assertStrContains(lines[2], "run=7")
  lu.assertStrContains(lines[2], "slow")
  lu.assertStrContains(lines[3], "42")
  lu.assertStrContains(lines[4], "broken (mend it)")
end

function TestLog.test_json()
  local lines = lines_of(function()
    log.info("quote \" and \n line", { item = "ü" })
    log.error("bytes \255\254")
  end, { to = 2, level = "info", format = "json" })
  lu.assertEquals(#lines, 2)
  local first = cjson.decode(lines[1])
  lu.assertEquals(first.message, "quote \" and \n line")
  lu.assertEquals({ first.severity, first.item }, { "INFO", "ü" })
  lu.assertEquals(cjson.decode(lines[2]).severity, "ERROR")
end

function TestLog.test_level()
  local lines = lines_of(function()
    log.debug("no")
    log.info("no")
    log.warn("yes")
  end, { to = 2, level = "warn", format = "text" })
  lu.assertEquals(#lines, 1)
  lu.assertStrContains(lines[1], "yes")
end

function TestLog.test_secrets_are_taken_out()
  local secret = sys.secret("tOp+sEcret/value")
  local lines = lines_of(function()
    log.info("key is " .. secret:reveal(), { key = secret, plain = secret:reveal() })
    log.info("in a url: tOp%2BsEcret%2Fvalue")
  end)
  lu.assertEquals(#lines, 2)
  for _, line in ipairs(lines) do
    lu.assertNotStrContains(line, "sEcret")
    lu.assertStrContains(line, "***")
  end
end

function TestLog.test_fields_of_every_line()
  local lines = lines_of(function()
    log.set { fields = { run = "r1" } }
    log.info("one")
    log.set { fields = { run = false } }
    log.info("two")
  end)
  lu.assertStrContains(lines[1], "run=r1")
  lu.assertNotStrContains(lines[2], "run=")
end

function TestLog.test_misuse()
  local function message(...)
    local ok, err = pcall(...)
    lu.assertFalse(ok)
    return err.message
  end
  lu.assertStrContains(message(core.write, "loud", "x"), "level must be debug, info, warn or error, got")
  lu.assertStrContains(message(core.set, { to = 3 }), "'to' must be 1, 2")
  lu.assertStrContains(message(core.set, { format = "xml" }), "format must be text or json, got 'xml'")
  lu.assertStrContains(message(core.set, { colour = 1 }), "unknown option 'colour'")
end

return { TestLog = TestLog }
