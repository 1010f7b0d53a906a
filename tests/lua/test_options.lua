-- SPDX-License-Identifier: MIT
-- lunark.options: types, sources and their order, messages.
local lu = require "luaunit"
local fs = require "lunark.fs"
local options = require "lunark.options"
local sys = require "lunark.core.sys"

local TestOptions = {}

local function good(kind, cases)
  for text, expected in pairs(cases) do
    lu.assertEquals(options.convert(text, kind, "x"), expected, kind .. " " .. tostring(text))
  end
end

local function bad(kind, texts)
  for _, text in ipairs(texts) do
    local value, err = options.convert(text, kind, "--limit")
    lu.assertNil(value, kind .. " " .. text)
    lu.assertEquals(err.kind, "usage")
    lu.assertStrContains(err.message, ("--limit: '%s' is not what is expected: "):format(text))
  end
end

function TestOptions.test_sizes()
  good("size", {
    ["0"] = 0, ["512"] = 512, ["64M"] = 67108864, ["1GiB"] = 1073741824, ["1.5k"] = 1536, ["10kB"] = 10000,
    ["2TB"] = 2000000000000, ["7b"] = 7, ["1 GiB"] = 1073741824, ["5g"] = 5368709120, [1024] = 1024,
  })
  bad("size", { "", "M", "-1", "1X", "1ib", "64MM", "0x10", "1e3" })
end

function TestOptions.test_durations()
  good("duration", {
    ["30s"] = 30, ["5m"] = 300, ["1h30m"] = 5400, ["2d"] = 172800, ["90"] = 90, ["1.5h"] = 5400,
    ["250ms"] = 0.25,
    [7] = 7, ["1w"] = 604800,
  })
  bad("duration", { "", "s", "5x", "-5s", "1h 30m" })
end

function TestOptions.test_the_others()
  good("boolean", { yes = true, ["1"] = true, True = true, no = false, off = false, ["0"] = false })
  bad("boolean", { "", "maybe", "2" })
  good("integer", { ["12"] = 12, ["-3"] = -3, [4] = 4 })
  bad("integer", { "1.5", "x", "", "0x1F" })
  good("list", { ["a, b ,c"] = { "a", "b", "c" }, [""] = {}, ["one"] = { "one" }, [",,x,"] = { "x" } })
  lu.assertEquals(options.convert({ "a,b", "c" }, "list", "x"), { "a", "b", "c" })
  local level = { "enum", values = { "fast", "best" } }
  lu.assertEquals(options.convert("best", level, "x"), "best")
  local _, err = options.convert("slow", level, "--compress")
  lu.assertEquals(err.message, "--compress: 'slow' is not what is expected: one of fast, best")
  _, err = options.convert("1M", { "size", min = 4 << 20 }, "--memory")
  lu.assertStrContains(err.message, "at least 4M")
  _, err = options.convert("99", { "integer", max = 10 }, "--n")
  lu.assertStrContains(err.message, "at most 10")
end

function TestOptions.test_secrets_never_show()
  local value = options.convert("geheim", "secret", "x")
  lu.assertEquals(tostring(value), "***")
  lu.assertEquals(value:reveal(), "geheim")
  local _, err = options.convert("", "secret", "key")
  lu.assertNotNil(err)
end

function TestOptions.test_sources_in_their_order()
  local declared = { level = { "integer", env = { "FIRST", "SECOND" }, default = 1 } }
  local env = {}
  local function value_of(given, plan)
    local context = { plan = plan, env = function(name) return env[name] end }
    return assert(options.parse(declared, given, context)).level
  end
  lu.assertEquals(value_of(), 1)
  lu.assertEquals(value_of({}, { level = 2 }), 2)
  env.SECOND = "3"
  lu.assertEquals(value_of({}, { level = 2 }), 3)
  env.FIRST = "4"
  lu.assertEquals(value_of({}, { level = 2 }), 4)
  lu.assertEquals(value_of({ level = "5" }, { level = 2 }), 5)
end

function TestOptions.test_secret_from_a_file()
  local dir = assert(fs.tmpdir("/tmp", "lunark-options"))
  assert(fs.write_text(dir .. "/secret", "from a file\n"))
  local declared = { key = { "secret", env = "THE_KEY" } }
  local values = assert(options.parse(declared, {}, {
    env = function(name) return name == "THE_KEY_FILE" and dir .. "/secret" or nil end,
  }))
  lu.assertEquals(values.key:reveal(), "from a file")
  local none, err = options.parse(declared, {}, {
    env = function(name) return name == "THE_KEY_FILE" and dir .. "/missing" or nil end,
  })
  lu.assertNil(none)
  lu.assertStrContains(err.message, "missing")
  assert(fs.remove_all(dir))
end

function TestOptions.test_unknown_and_missing()
  local declared = { database = { "list", required = true, env = "DB" }, host = { "string" } }
  local values, err = options.parse(declared, { databse = "x" }, { what = "policy neo4j" })
  lu.assertNil(values)
  lu.assertEquals(err.message, "policy neo4j has no option 'databse'")
  lu.assertEquals(err.hint, "did you mean database?")
  err = select(2, options.parse(declared, { quite_other = "x" }))
  lu.assertEquals(err.hint, "it has: database, host")
  err = select(2, options.parse(declared, {}, {
    what = "policy neo4j", env = function() end, label = function(name) return "--" .. name end,
  }))
  lu.assertEquals(err.message, "policy neo4j: --database is missing")
  lu.assertStrContains(err.hint, "DB")
  err = select(2, options.parse(declared, { database = " , " }, { env = function() end }))
  lu.assertStrContains(err.message, "database is missing")
end

function TestOptions.test_environment_that_is_wrong_is_named()
  local declared = { n = { "integer", env = "COUNT" } }
  local _, err = options.parse(declared, {}, { env = function() return "many" end })
  lu.assertEquals(err.message, "COUNT: 'many' is not what is expected: a whole number")
end

function TestOptions.test_declarations_are_checked()
  lu.assertTrue(options.check { a = { "string", env = "A", help = "x" } })
  local ok, wrong = options.check { a = { "strin" } }
  lu.assertNil(ok)
  lu.assertStrContains(wrong, "option 'a'")
  wrong = select(2, options.check { a = { "string", defualt = 1 } })
  lu.assertStrContains(wrong, "defualt")
  wrong = select(2, options.check { a = { "enum" } })
  lu.assertStrContains(wrong, "values")
end

function TestOptions.test_default_false_is_a_value()
  lu.assertEquals(options.parse({ flag = { "boolean", default = true } }, { flag = "no" }), { flag = false })
  lu.assertEquals(options.parse { flag = { "boolean", default = false } }, { flag = false })
  lu.assertTrue(sys.is_error(select(2, options.parse({}, { x = 1 }))))
end

return { TestOptions = TestOptions }
