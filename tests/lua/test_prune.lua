-- SPDX-License-Identifier: MIT
-- lunark.prune and lunark.orphans on a store in memory: seeded histories, cut off at each deletion, with keys
-- that the store refuses, and with things that happen between plan and deletion.
local lu = require "luaunit"
local json = require "lunark.json"
local naming = require "lunark.naming"
local orphans = require "lunark.orphans"
local prune = require "lunark.prune"
local stream = require "lunark.core.stream"
local sys = require "lunark.core.sys"

local TestPrune = {}

local NOW, DAY = 1800000000, 86400
local SHA = ("0"):rep(64)
local MARK = { ["lunark-version"] = "0.1.0" }
local Store = {}
Store.__index = Store

local function new_store()
  return setmetatable({
    objects = {}, features = {}, number = 0, refused = {}, budget = math.huge, skew = 0,
  }, Store)
end

function Store:put(key, text, meta, mtime)
  self.number = self.number + 1
  self.objects[key] = { text = text, meta = meta or {}, etag = tostring(self.number), mtime = mtime or 0 }
  return key
end

function Store:keys()
  local keys = {}
  for key in pairs(self.objects) do keys[#keys + 1] = key end
  table.sort(keys)
  return keys
end

function Store:info(key)
  local found = self.objects[key]
  if not found then return nil, sys.error { kind = "not_found", message = key .. ": not there" } end
  return { key = key, size = #found.text, etag = found.etag, mtime = found.mtime, meta = found.meta }
end

function Store:list(prefix)
  local keys, index = self:keys(), 0
  return function()
    repeat
      index = index + 1
    until not keys[index] or keys[index]:sub(1, #prefix) == prefix
    return keys[index] and self:info(keys[index])
  end
end

function Store:get(key)
  local info, err = self:info(key)
  if not info then return nil, err end
  return stream.of(self.objects[key].text), info
end

function Store.can() return false end
function Store.describe() return "memory" end
Store.head = Store.info

-- In any order, as stores do; once the budget is used up nothing happens any more: the run was killed.
function Store:delete(keys)
  local errors, first = {}, nil
  local order = table.move(keys, 1, #keys, 1, {})
  for i = #order, 2, -1 do
    local j = math.random(i)
    order[i], order[j] = order[j], order[i]
  end
  for _, key in ipairs(order) do
    if self.budget == 0 then error("killed", 0) end
    self.budget = self.budget - 1
    if self.refused[key] then
      first = sys.error { kind = "denied", message = key .. ": no", code = "X" }
      errors[key] = first
    else
      self.objects[key] = nil
    end
  end
  if not first then return true, {} end
  if #keys == 1 then return nil, first end
  local err = sys.error { kind = "denied", message = "some" }
  err.errors = errors
  return nil, err
end

local function manifest_of(key, size)
  return json.encode { lunark_manifest = 1, key = key, size = size, sha256 = SHA }
end

local function pick(list) return list[math.random(#list)] end

-- Archives of all kinds: good, without manifest, ours or not, with another size; other objects beside them.
local function fill(store)
  for _ = 1, math.random(0, 40) do
    local item, style = pick { "a", "b" }, pick { "standard", "compat" }
    local at = NOW - math.random(400) * DAY - pick { 0, 0, math.random(DAY) }
    local key = naming.data_key(item, at, pick { ".tar.gz", ".dump.gz" }, style)
    local stem = naming.data_key(item, at, "", style)
    local kind = pick { "good", "good", "good", "good", "incomplete", "other", "damaged", "report" }
    if not store.objects[stem .. naming.MANIFEST] then
      if kind ~= "report" then store:put(key, "data", kind ~= "other" and MARK or nil) end
      if kind == "good" or kind == "damaged" then
        store:put(stem .. naming.MANIFEST, manifest_of(key, kind == "good" and 4 or 5), MARK)
      end
      local reported = kind == "report" or math.random(3) == 1
      if reported then store:put(stem .. ".report.tar.gz", "report", MARK) end
    end
  end
  for _, key in ipairs { "a/a-latest.tar.gz", "a/notes", "x", "b/c/b-2020-01-01T000000Z.tar.gz" } do
    store:put(key, "x", MARK)
  end
end

local function rules()
  return { last = math.random(3), daily = math.random(0, 9), monthly = math.random(0, 5), yearly = 1 }
end

local function copy_of(store)
  local copy = new_store()
  for key, object in pairs(store.objects) do copy.objects[key] = object end
  return copy
end

-- By the manifests alone: archive, and time, of what is whole; by series.
local function whole(store)
  local found = {}
  for key, object in pairs(store.objects) do
    local parsed = naming.parse_key(key)
    local said = parsed and parsed.kind == "manifest" and json.decode(object.text)
    local data = said and store.objects[said.key]
    if data and #data.text == said.size then
      local series = parsed.item .. naming.parse_key(said.key).suffix
      found[series] = found[series] or {}
      found[series][said.key] = parsed.time
    end
  end
  return found
end

local function newest(series)
  local best
  for key, at in pairs(series) do
    if not best or at > series[best] or at == series[best] and key < best then best = key end
  end
  return best
end

-- What must hold after any run, however it ended.
local function check(before, after, where)
  for key, object in pairs(after.objects) do
    local parsed = naming.parse_key(key)
    if parsed and parsed.kind == "manifest" then
      local data = after.objects[json.decode(object.text).key]
      lu.assertNotNil(data, where .. ": a manifest without its archive")
    end
    lu.assertEquals(object, before.objects[key], where)
  end
  local good, left = whole(before), whole(after)
  for name, series in pairs(good) do
    local key = newest(series)
    lu.assertNotNil((left[name] or {})[key], where .. ": the newest is gone: " .. key)
  end
  local kept = {}
  for _, series in pairs(good) do
    for key in pairs(series) do kept[key] = true end
  end
  for key in pairs(before.objects) do
    local parsed = naming.parse_key(key)
    local may_go = kept[key] or parsed and (parsed.kind == "manifest" or parsed.kind == "report")
    lu.assertTrue(after.objects[key] ~= nil or may_go ~= nil, where .. ": " .. key)
  end
end

local function apply(store, given)
  local plan = assert(prune.plan(store, { rules = given, now = NOW }))
  local before = prune.count(plan, "delete")
  return assert(prune.apply(plan)), before
end

local function each(seed, count, fn)
  math.randomseed(seed)
  for round = 1, count do
    local store = new_store()
    fill(store)
    fn(store, rules(), ("seed %d, round %d"):format(seed, round))
  end
end

function TestPrune.test_histories()
  each(1, 150, function(store, given, where)
    local before = copy_of(store)
    local outcome, planned = apply(store, given)
    lu.assertEquals({ outcome.deleted, #outcome.failures }, { planned, 0 }, where)
    check(before, store, where)
    lu.assertEquals({ apply(store, given).deleted, #store:keys() }, { 0, #store:keys() }, where)
  end)
end

function TestPrune.test_cut_off_at_each_deletion()
  each(2, 25, function(store, given, where)
    local done = copy_of(store)
    apply(done, given)
    assert(orphans.apply(assert(orphans.plan(done, { now = NOW, older = 0 }))))
    for budget = 0, #store:keys() - #done:keys() - 1 do
      local cut = copy_of(store)
      cut.budget = budget
      pcall(apply, cut, given)
      check(store, cut, ("%s, after %d"):format(where, budget))
      cut.budget = math.huge
      apply(cut, given)
      assert(orphans.apply(assert(orphans.plan(cut, { now = NOW, older = 0 }))))
      lu.assertEquals(cut:keys(), done:keys(), where)
    end
  end)
end

function TestPrune.test_refused_keys()
  each(3, 100, function(store, given, where)
    local before = copy_of(store)
    for _, key in ipairs(store:keys()) do
      store.refused[key] = math.random(4) == 1 or nil
    end
    local outcome, planned = apply(store, given)
    check(before, store, where)
    for key in pairs(store.refused) do lu.assertNotNil(store.objects[key], where) end
    lu.assertTrue(outcome.deleted <= planned, where)
    lu.assertTrue(#outcome.failures > 0 or outcome.deleted == planned, where)
  end)
end

function TestPrune.test_what_happens_meanwhile()
  each(4, 150, function(store, given, where)
    local plan = assert(prune.plan(store, { rules = given, now = NOW }))
    for _, key in ipairs(store:keys()) do
      local what = math.random(8)
      if what == 1 then
        store.objects[key] = nil
      elseif what == 2 then
        store:put(key, store.objects[key].text .. "more", MARK)
      end
    end
    store:put(naming.data_key("a", NOW - 5, ".tar.gz"), "data", MARK)
    local before = copy_of(store)
    assert(prune.apply(plan))
    local good, left = whole(before), whole(store)
    for name, series in pairs(good) do
      lu.assertNotNil((left[name] or {})[newest(series)], where)
    end
    for key in pairs(before.objects) do
      if not store.objects[key] then
        for _, line in ipairs(plan.lines) do
          lu.assertFalse(line.backup.key == key and line.action ~= "delete", where .. ": " .. key)
        end
      end
    end
  end)
end

function TestPrune.test_what_the_store_does_not_tell()
  local store = new_store()
  for day = 1, 3 do
    local key = store:put(naming.data_key("a", NOW - day * DAY, ".gz"), "data")
    store:put(naming.manifest_key("a", NOW - day * DAY), manifest_of(key, 4))
  end
  for _, object in pairs(store.objects) do object.etag, object.mtime = nil, nil end
  lu.assertEquals(apply(store, { last = 1 }).deleted, 2)
  lu.assertEquals(#store:keys(), 2)
end

function TestPrune.test_a_store_that_fails()
  local store = new_store()
  fill(store)
  function store.list()
    return function() return false, sys.error { kind = "network", message = "gone" } end
  end
  local plan, err = prune.plan(store, { rules = { last = 1 }, now = NOW })
  lu.assertNil(plan)
  lu.assertEquals(err.exit, 3)
  plan, err = orphans.plan(store, { now = NOW })
  lu.assertNil(plan)
  lu.assertEquals(err.message, "gone")
end

function TestPrune.test_manifests_in_an_archive_class()
  local store = new_store()
  for day = 1, 3 do
    local key = store:put(naming.data_key("a", NOW - day * DAY, ".gz"), "data", day ~= 3 and MARK or nil)
    store:put(naming.manifest_key("a", NOW - day * DAY), manifest_of(key, 4))
  end
  local err = sys.error { kind = "io", message = "it is archived" }
  function store.get() return nil, err end
  local none, why = prune.plan(store, { rules = { last = 1 }, now = NOW })
  lu.assertEquals({ none, why.message }, { nil, "it is archived" })
  err.archived = true
  local plan = assert(prune.plan(store, { rules = { last = 1 }, now = NOW }))
  lu.assertEquals({ plan.lines[1].action, plan.lines[2].action, plan.lines[3].action, plan.lines[3].reasons },
    { "keep", "delete", "leave", { "it is archived" } })
end

-- Uploads as tables {began =, touched =}: their plans, and those that are discarded.
local function with_uploads(all, skew, meanwhile)
  local store, gone = new_store(), {}
  store.skew = skew or 0
  function store.can() return true end
  function store.can_discard() return true end
  function store.uploads()
    local index = 0
    return function()
      index = index + 1
      return all[index]
    end
  end
  function store.upload_time(_, one)
    if one.gone then return nil, sys.error { kind = "not_found", message = "gone" } end
    return one.touched or false
  end
  function store.discard(_, one)
    gone[#gone + 1] = one.id
    return true
  end
  for i, one in ipairs(all) do one.id, one.key = i, naming.data_key("a", NOW - i, ".gz") end
  local plan = assert(orphans.plan(store, { now = NOW }))
  local actions = {}
  for _, line in ipairs(plan.lines) do actions[line.one.id] = line.action end
  if meanwhile then meanwhile() end
  assert(orphans.apply(plan))
  table.sort(gone)
  return actions, gone
end

function TestPrune.test_how_old_an_upload_is()
  local old, young = NOW - 2 * DAY, NOW - DAY + 1
  local all = {
    { began = old }, { began = young }, { began = old, touched = young }, { began = old, touched = old }, {},
    { touched = old }, { touched = young }, { began = old, gone = true },
  }
  local actions, gone = with_uploads(all)
  lu.assertEquals(actions, { "delete", "keep", "keep", "delete", "leave", "delete", "keep" })
  lu.assertEquals(gone, { 1, 4, 6 })
  -- The store's clock is two days behind ours: nothing is old for it.
  lu.assertEquals(select(2, with_uploads(all, -2 * DAY)), {})
end

function TestPrune.test_an_upload_that_goes_on_meanwhile()
  local all = { { began = NOW - 2 * DAY }, { began = NOW - 2 * DAY }, { began = NOW - 2 * DAY } }
  local _, gone = with_uploads(all, 0, function() all[1].touched, all[3].gone = NOW, true end)
  lu.assertEquals(gone, { 2 })
end

return { TestPrune = TestPrune }
