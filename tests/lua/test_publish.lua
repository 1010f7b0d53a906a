-- SPDX-License-Identifier: MIT
-- lunark.publish: `latest` when another run moves it at the same time.
local lu = require "luaunit"
local publish = require "lunark.publish"
local sys = require "lunark.core.sys"

local TestLatest = {}

local RECORD = {
  item = "db", key = "db/db-2026-03-01T120000Z.tar.gz", suffix = ".tar.gz", time = 1772366400, sha256 = "00",
}

-- A store whose `latest` is moved by others: `others` holds what they put there, one before each of our
-- copies.
local function store_of(latest, others)
  local s = { latest = latest, copies = {} }
  function s.can() return true end
  function s.head()
    if s.latest then return s.latest end
    return nil, sys.error { kind = "not_found", message = "none" }
  end
  function s.copy(_, _, _, meta, how)
    s.copies[#s.copies + 1] = how.replaces
    s.latest = table.remove(others, 1) or s.latest
    local version = s.latest and s.latest.version or false
    if how.replaces ~= nil and how.replaces ~= version then
      return nil, sys.error { kind = "conflict", message = "it has changed" }
    end
    s.latest = { version = "ours", meta = meta }
    return s.latest
  end
  return s
end

local function latest(version, day)
  return { version = version, meta = { ["lunark-key"] = ("db/db-2026-%sT120000Z.tar.gz"):format(day) } }
end

function TestLatest.test_first_one()
  local s = store_of(nil, {})
  lu.assertTrue(publish.latest(s, RECORD, "x"))
  lu.assertEquals(s.copies, { false })
end

function TestLatest.test_older_one_is_replaced()
  local s = store_of(latest("1", "02-01"), {})
  lu.assertTrue(publish.latest(s, RECORD, "x"))
  lu.assertEquals(s.copies, { "1" })
end

function TestLatest.test_newer_one_of_another_run_stays()
  local s = store_of(latest("1", "02-01"), { latest("2", "03-02") })
  lu.assertEquals({ publish.latest(s, RECORD, "x") }, { false })
  lu.assertEquals(s.copies, { "1" })
  lu.assertEquals(s.latest.version, "2")
end

function TestLatest.test_older_one_of_another_run_is_replaced()
  local s = store_of(nil, { latest("2", "02-02") })
  lu.assertTrue(publish.latest(s, RECORD, "x"))
  lu.assertEquals(s.copies, { false, "2" })
  lu.assertEquals(s.latest.version, "ours")
end

function TestLatest.test_race_without_end()
  local others = {}
  for index = 1, 50 do others[index] = latest(tostring(index), "02-02") end
  local moved, err = publish.latest(store_of(nil, others), RECORD, "x")
  lu.assertNil(moved)
  lu.assertEquals(err.kind, "conflict")
end

function TestLatest.test_accounts_that_only_write()
  local s = store_of(nil, {})
  function s.head() return nil, sys.error { kind = "auth", status = 403, message = "no" } end
  lu.assertTrue(publish.latest(s, RECORD, "x"))
  lu.assertEquals(#s.copies, 0)
end

return { TestLatest = TestLatest }
