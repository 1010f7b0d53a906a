-- SPDX-License-Identifier: MIT
-- `lunark verify --data`: reads what is in an archive, all of it or a sample, and notes what is damaged in
-- a lunark.verify.Result. The bytes stay in the runtime. Needs lunark.store objects.

local check = require "lunark.core.check"
local fetch = require "lunark.fetch"
local index = require "lunark.verify_index"
local log = require "lunark.log"
local task = require "lunark.task"

local data = {}

local AHEAD = 8 -- index blocks that are fetched at once
local UNIT = 8 * 1024 * 1024 -- bytes of a piece of a sample, at most
local UNIT_MIN = 64 * 1024

-- --- what is found ---

local function add_found(result, found, known)
  local counts = result.counts
  for _, name in ipairs { "bytes", "members", "raw", "files", "entries", "unchecked" } do
    counts[name] = (counts[name] or 0) + found[name]
  end
  for _, finding in ipairs(found.findings) do
    if finding.path or not known[finding.first] then
      result:damage("data", finding.message, finding.first, finding.last, finding.path)
    end
  end
  local rest = found.finding_count - #found.findings
  if rest > 0 then
    result:damage("data", ("%d more findings"):format(rest))
  end
end

-- Where the index is known to be damaged: that is told once.
local function known_places(result)
  local known = {}
  for _, finding in ipairs(result.findings) do
    known[finding.first or ""] = true
  end
  return known
end

-- --- the index, ahead of the data ---

-- Gives blocks to the check as long as it wants some. A damaged block is walked over.
local function feed(job, source, footer)
  local next_block = index.blocks(source, footer)
  local ended = false
  local function batch()
    local refs = {}
    while #refs < AHEAD and not ended do
      local ref, err = next_block()
      if ref and not index.misplaced(ref, footer, 0) then
        refs[#refs + 1] = ref
      elseif ref == false and err.kind ~= "corrupt" then
        return nil, err
      else
        ended = true
      end
    end
    local failed
    task.map(refs, AHEAD, function(ref)
      local why
      ref.bytes, why = index.block(source, ref)
      failed = failed or why
      return true
    end)
    return not failed and refs, failed
  end
  return function()
    local refs, err = batch()
    for _, ref in ipairs(refs or {}) do
      local ok, why = job:block(ref.bytes, ref.at)
      if not ok and why.kind == "corrupt" then
        ok, why = job:walk(ref.at + ref.size)
      end
      if not ok then
        return nil, why
      end
    end
    if ended then
      job:finish()
    end
    return refs and true, err
  end
end

-- Waits for the end, and gives blocks meanwhile.
local function run(job, more)
  while true do
    local found, err = job:wait()
    if found ~= "more" then
      return found, err
    end
    local ok
    ok, err = more()
    if not ok then
      return nil, err
    end
  end
end

-- The bytes first to last of the object, or all of them; and the reader behind them, to be closed.
local function open(store, result, first, last, options)
  local reader, err = fetch.open(store, result.key, { size = result.size, first = first, last = last })
  if not reader then
    return nil, err
  end
  return options.limit_rate and reader.stream:limit(options.limit_rate) or reader.stream, reader
end

local function track(result, job, options)
  return options.progress and options.progress:track(result.item, function()
    local at = job:progress()
    return { read = (result.counts.bytes or 0) + at.bytes, files = (result.counts.files or 0) + at.files }
  end) or nil
end

local function is_tar(result)
  if result.footer then
    return result.footer.records > 0
  end
  return result.key:find("%.tar%.gz$") ~= nil or result.key:find("%.tgz$") ~= nil
end

-- --- all of it ---

local function compare_whole(result, found)
  if result.expected_sha256 and found.sha256 ~= result.expected_sha256 then
    result:damage("data", ("%s has SHA-256 %s, %s expected"):format(result.key, found.sha256,
      result.expected_sha256))
  end
  local footer = result.footer
  if footer and result.index_whole and found.finding_count == 0 and found.members ~= footer.members then
    result:damage("data", ("%s has %d members, its index %d"):format(result.key, found.members,
      footer.members))
  end
end

-- An archive of ours.
local function read_members(store, result, options)
  local stream, reader = open(store, result, nil, nil, options)
  if not stream then
    return nil, reader
  end
  local _ <close> = reader
  local job, err = check.data(stream, {
    tar = is_tar(result), hash = true, tolerant = not result.index_whole,
  })
  if not job then
    return nil, err
  end
  local running <close> = job
  local _ <close> = track(result, running, options)
  local more
  if result.footer then
    more = feed(running, result.source, result.footer)
  else
    running:finish()
  end
  local found
  found, err = run(running, more)
  if not found then
    return nil, err
  end
  add_found(result, found, known_places(result))
  compare_whole(result, found)
  return true
end

-- Where nothing says what it must hash to: whether it can be read to its end.
local function read_through(store, result, options)
  local suffix = result.key:match("%.tar%.gz$") or result.key:match("%.[^./]*$") or ""
  local stream, reader = open(store, result, nil, nil, options)
  if not stream then
    return nil, reader
  end
  local _ <close> = reader
  local body <close> = stream
  local ok, err = true, nil
  if suffix == ".tar.gz" or suffix == ".tgz" or suffix == ".tar" then
    ok, err = check.tar(body)
    result.counts.entries = ok and ok.entries
  elseif suffix == ".gz" then
    ok, err = body:gunzip():discard()
  else
    result:warn("data", ("%s is neither tar nor gzip: there is nothing to check"):format(result.key))
  end
  if not ok and err.kind == "corrupt" then
    result:damage("data", err.message)
    ok = true
  end
  return ok and true, err
end

-- What has no members of ours.
local function read_foreign(store, result, options)
  if not result.expected_sha256 then
    return read_through(store, result, options)
  end
  local stream, reader = open(store, result, nil, nil, options)
  if not stream then
    return nil, reader
  end
  local _ <close> = reader
  local digests, err = stream:hash { "sha256" }
  if not digests then
    return nil, err
  end
  compare_whole(result, { sha256 = digests.sha256, finding_count = 0 })
  return true
end

--- Reads all of an object.
---@param store table lunark.store
---@param result lunark.verify.Result
---@param options table {progress=, limit_rate=}
---@return true|nil
---@return table|nil err what could not be read
function data.all(store, result, options)
  result.counts = {}
  local ok, err
  if result.footer or result.members then
    ok, err = read_members(store, result, options)
  else
    ok, err = read_foreign(store, result, options)
  end
  if ok then
    result:did "data"
  end
  return ok, err
end

-- --- a sample ---

-- Numbers from 0 to 1 that a seed repeats.
local function random_of(seed)
  local state = seed
  return function()
    state = state * 6364136223846793005 + 1442695040888963407
    return (state >> 33) / (1 << 31)
  end
end

-- A unit that is being read. Records of its last member may lie in blocks behind, which it is given, too.
local function open_unit(store, result, ref, unit, options)
  local stream, reader = open(store, result, unit.first, unit.last, options)
  if not stream then
    return nil, reader
  end
  local job, err = check.data(stream, { at = unit.first, tar = is_tar(result), sample = true })
  local ok = job
  if job then
    ok, err = job:block(ref.bytes, ref.at, unit.row, unit.rows)
  end
  if not ok then
    reader:close()
    return nil, err
  end
  return { job = job, last = unit.last, track = track(result, job, options), reader = reader }
end

local function end_unit(result, unit)
  local job <close> = unit.job
  local _ <close> = unit.reader
  local _ <close> = unit.track
  job:finish()
  local found, err = run(job)
  if not found then
    return nil, err
  end
  add_found(result, found, {})
  return true
end

-- Units under way: each ends once a record was seen that is behind its last member.
local function new_units(store, result, options)
  local units = { open = {} }
  local function settle(names)
    for i = #units.open, 1, -1 do
      if not names or names > units.open[i].last then
        local ok, err = end_unit(result, table.remove(units.open, i))
        if not ok then
          return nil, err
        end
      end
    end
    return true
  end
  function units.block(ref, names)
    for _, unit in ipairs(units.open) do
      local ok, err = unit.job:block(ref.bytes, ref.at)
      if not ok then
        return nil, err
      end
    end
    if names then
      return settle(names)
    end
    return true
  end
  function units.add(ref, unit, names)
    local opened, err = open_unit(store, result, ref, unit, options)
    units.open[#units.open + 1] = opened
    if not opened then
      return nil, err
    elseif names and names > unit.last then
      return settle(names)
    end
    return true
  end
  units.finish = settle
  return setmetatable(units, { __close = function()
    for _, unit in ipairs(units.open) do
      if unit.track then
        unit.track:close()
      end
      unit.job:close()
      unit.reader:close()
    end
  end })
end

-- Chooses pieces of the data, a block of the index at a time. Where chance takes none, one is taken.
local function read_sample(result, percent, seed, units)
  local random = random_of(seed)
  local size = math.max(UNIT_MIN, math.min(UNIT, result.size // 256))
  local any, seen, spare = false, 0, nil
  for ref, err in index.blocks(result.source, result.footer) do
    if not ref or index.misplaced(ref, result.footer, 0) then
      if ref or err.kind == "corrupt" then
        break -- it is a finding already
      end
      return nil, err
    end
    ref.bytes, err = index.block(result.source, ref)
    if not ref.bytes then
      return nil, err
    end
    local block = index.sums(ref.bytes)
    local ok = true
    if block then
      ok, err = units.block(ref, block.names)
    end
    for _, unit in ipairs(block and index.units(ref.bytes, size) or {}) do
      seen = seen + 1
      if ok and random() * 100 < percent then
        any = true
        ok, err = units.add(ref, unit, block.names)
      elseif random() * seen < 1 then
        spare = { ref, unit }
      end
    end
    if not ok then
      return nil, err
    end
  end
  local ok, err = true, nil
  if not any and spare then
    ok, err = units.add(spare[1], spare[2])
  end
  if ok then
    ok, err = units.finish()
  end
  return ok, err
end

--- Reads a part of an object, chosen at random. Where that can't be done, because there is no index, all.
---@param store table lunark.store
---@param result lunark.verify.Result
---@param percent number
---@param options table {seed=, progress=, limit_rate=}
---@return true|nil
---@return table|nil err what could not be read
function data.sample(store, result, percent, options)
  if not result.footer or percent >= 100 then
    if result.members and not result.footer then
      log.info(("%s: without an index all of it is read"):format(result.key), { item = result.item })
    end
    return data.all(store, result, options)
  end
  result.counts = {}
  local units <close> = new_units(store, result, options)
  local ok, err = read_sample(result, percent, options.seed, units)
  if ok then
    result:did(("data %g%%"):format(percent))
  end
  return ok, err
end

return data
