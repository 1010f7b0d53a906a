-- SPDX-License-Identifier: MIT
-- lunark.policy: the contract, and finding policies.

local lu = require "luaunit"
local policy = require "lunark.policy"

local TestPolicy = {}

local function contract(more)
  local made = { api = 1, name = "mine", summary = "things of mine", backup = function() end }
  for key, value in pairs(more or {}) do
    made[key] = value
  end
  return made
end

local function refused(given, message)
  local ok, err = pcall(policy, given)
  lu.assertFalse(ok)
  lu.assertEquals(err.kind, "usage")
  lu.assertStrContains(err.message, message)
end

function TestPolicy.test_the_least()
  local made = policy(contract())
  lu.assertTrue(policy.is(made))
  lu.assertFalse(policy.is(contract()))
  lu.assertEquals(made.naming, "standard")
  lu.assertEquals(policy.needs_of(made, {}), {})
end

function TestPolicy.test_what_is_wrong_is_named()
  refused("x", "a table expected, found a string")
  for _, field in ipairs { "api", "name", "summary", "backup" } do
    local given = contract()
    given[field] = nil
    refused(given, "the field " .. field .. " is missing")
  end
  refused(contract { api = 2 }, "policy mine: api 2, this lunark has 1")
  refused(contract { backup = true }, "the field backup is a boolean, function expected")
  refused(contract { name = "../x" }, "a name of letters")
  refused(contract { verison = 1 }, "unknown field 'verison'")
  refused(contract { restore = true }, "the field restore is a boolean, table expected")
  refused(contract { restore = { summary = "x" } }, "the field restore.run is missing")
  refused(contract { restore = { summary = "x", run = print, what = 1 } }, "unknown field 'restore.what'")
  refused(contract { restore = { summary = "x", run = 1 } },
    "the field restore.run is a number, function expected")
  refused(contract { naming = "iso" }, "naming 'iso', standard or compat expected")
  refused(contract { needs = { exce = { "a" } } }, "unknown capability 'exce'")
  refused(contract { needs = { exec = "a" } }, "needs.exec must be a list")
  refused(contract { needs = { exec = { 1 } } }, "strings expected")
end

function TestPolicy.test_needs_by_options()
  local made = policy(contract { needs = function(options) return { read = options.path } end })
  lu.assertEquals(policy.needs_of(made, { path = { "/a" } }), { read = { "/a" } })
  made = policy(contract { needs = function() return { bad = {} } end })
  lu.assertErrorMsgContains("unknown capability 'bad'", policy.needs_of, made, {})
  made = policy(contract { needs = function() end })
  lu.assertErrorMsgContains("a table expected", policy.needs_of, made, {})
end

function TestPolicy.test_the_embedded_ones_load()
  local names = {}
  for _, entry in ipairs(policy.names()) do
    names[entry.name] = true
  end
  for _, name in ipairs { "files", "neo4j" } do
    lu.assertTrue(names[name], name)
    local found = assert(policy.load(name))
    lu.assertEquals(found.name, name)
  end
end

function TestPolicy.test_none_of_that_name()
  local found, err = policy.load("nothing")
  lu.assertNil(found)
  lu.assertEquals(err.message, "there is no policy 'nothing'")
  lu.assertStrContains(err.hint, "files, neo4j")
  found, err = policy.load("../cli")
  lu.assertNil(found)
  lu.assertEquals(err.kind, "usage")
end

return { TestPolicy = TestPolicy }
