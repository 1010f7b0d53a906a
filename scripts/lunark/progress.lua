-- SPDX-License-Identifier: MIT
-- Progress of a run: a bar on a terminal, a line every 30 seconds elsewhere, or nothing, and always a
-- record for the host. It writes to standard error and never waits for it.
-- Needs lunark.core.sys, lunark.core.log, lunark.task.

local corelog = require "lunark.core.log"
local log = require "lunark.log"
local sys = require "lunark.core.sys"
local task = require "lunark.task"

local progress = {}
progress.__index = progress

--- Seconds between two drawings of the bar, and between two plain lines.
progress.BAR_EVERY = 0.25
progress.PLAIN_EVERY = 30

local UNITS = { "KiB", "MiB", "GiB", "TiB", "PiB" }

--- Bytes for people: 0 B, 1023 B, 1.5 KiB, 12.0 MiB, 340 GiB.
---@param bytes number
---@return string
function progress.size(bytes)
  if bytes < 1024 then
    return ("%d B"):format(math.floor(bytes))
  end
  local value, unit = bytes, 0
  repeat
    value, unit = value / 1024, unit + 1
  until value < 1023.95 or unit == #UNITS
  return (value < 99.95 and "%.1f %s" or "%.0f %s"):format(value, UNITS[unit])
end

--- A duration for people: 4 s, 1 min 05 s, 2 h 07 min.
---@param seconds number
---@return string
function progress.duration(seconds)
  local whole = math.floor(seconds + 0.5)
  if whole < 60 then
    return ("%d s"):format(whole)
  elseif whole < 3600 then
    return ("%d min %02d s"):format(whole // 60, whole % 60)
  end
  return ("%d h %02d min"):format(whole // 3600, whole % 3600 // 60)
end

---@class lunark.progress.Sample
---@field read integer bytes read from the source so far
---@field stored integer|nil bytes after compression so far
---@field total integer|nil bytes that the source is estimated to have
---@field files integer|nil
---@field waiting string|nil the program that is being waited for, when nothing can be counted

-- Seconds that are left, or nil as long as that would be a guess.
local function seconds_left(sample, elapsed)
  if not sample.total or sample.read <= 0 or elapsed < 2 or sample.total <= sample.read then
    return nil
  end
  return elapsed * (sample.total - sample.read) / sample.read
end

local function rate_of(sample, elapsed)
  return elapsed > 0 and sample.read / elapsed or 0
end

--- One line without colour that says where an item is.
---@param name string item
---@param sample lunark.progress.Sample
---@param elapsed number seconds
---@return string
function progress.line(name, sample, elapsed)
  if sample.waiting then
    return ("%s: still waiting for %s, %s"):format(name, sample.waiting, progress.duration(elapsed))
  end
  local parts = { ("%s: %s read"):format(name, progress.size(sample.read)) }
  if sample.total and sample.total > 0 then
    parts[1] = ("%s of %s"):format(parts[1], progress.size(sample.total))
  end
  if sample.stored then
    parts[#parts + 1] = progress.size(sample.stored) .. " stored"
    if sample.stored > 0 and sample.read > sample.stored then
      parts[#parts + 1] = ("ratio %.1f"):format(sample.read / sample.stored)
    end
  end
  parts[#parts + 1] = progress.size(rate_of(sample, elapsed)) .. "/s"
  local left = seconds_left(sample, elapsed)
  if left then
    parts[#parts + 1] = progress.duration(left) .. " left"
  end
  return table.concat(parts, ", ")
end

--- The bar, at most `columns` wide.
function progress.bar(name, sample, elapsed, columns)
  local text = progress.line(name, sample, elapsed)
  local room = columns - #text - 10
  if sample.total and sample.total > 0 and room >= 10 then
    local share = math.min(sample.read / sample.total, 1)
    local width = math.min(room, 30)
    local full = math.floor(share * width)
    text = ("[%s%s] %3d%% %s"):format(("#"):rep(full), ("."):rep(width - full), math.floor(share * 100), text)
  end
  return text:sub(1, columns)
end

---@class lunark.progress.Track
---@field name string
---@field sampler fun(): lunark.progress.Sample
---@field began number

local Track = {}
Track.__index = Track

--- Ends a track. Idempotent.
function Track:close()
  local owner = self.owner
  if owner and owner.tracks[self] then
    owner.tracks[self] = nil
    owner:clear()
  end
  self.owner = nil
end
Track.__close = Track.close

--- Starts to show progress.
---@param mode string "auto", "bar", "plain" or "none"
---@return table progress with track() and close()
function progress.start(mode)
  if mode == "auto" then
    mode = sys.isatty(2) and "bar" or "plain"
  end
  local self = setmetatable({ mode = mode, tracks = {}, order = 0, drawn = false }, progress)
  self.ticker = task.spawn(function()
    self:tick()
  end)
  return self
end

--- True when somebody looks on who wants to know how long it still takes.
---@return boolean
function progress:wants_total()
  return self.mode == "bar"
end

--- Shows one item until the returned track is closed.
---@param name string
---@param sampler fun(): lunark.progress.Sample
---@return lunark.progress.Track to-be-closed
function progress:track(name, sampler)
  self.order = self.order + 1
  local track = setmetatable({
    name = name, sampler = sampler, began = sys.monotonic(), owner = self, order = self.order,
    said = sys.monotonic(),
  }, Track)
  self.tracks[track] = true
  return track
end

--- Shows that a program is waited for, until the returned handle is closed.
---@param shown table|nil a progress; nil: nothing is shown
---@param item string
---@param what string the program
---@return table to-be-closed
function progress.waiting(shown, item, what)
  if not shown then
    return setmetatable({}, { __close = function() end })
  end
  return shown:track(item, function()
    return { read = 0, waiting = what }
  end)
end

function progress:sorted()
  local list = {}
  for track in pairs(self.tracks) do
    list[#list + 1] = track
  end
  table.sort(list, function(a, b) return a.order < b.order end)
  return list
end

-- Takes the bar off the line.
function progress:clear()
  if self.drawn then
    self.drawn = false
    sys.write(2, "\r\27[K")
  end
end

function progress:draw(list)
  local track = list[1]
  local columns = (sys.columns() or 80) - 1
  local name = #list == 1 and track.name or ("%s (+%d)"):format(track.name, #list - 1)
  local bar = progress.bar(name, track.sampler(), sys.monotonic() - track.began, columns)
  self.drawn = true
  -- The cursor goes back to the start, so that a log line writes over the bar instead of behind it.
  sys.write(2, "\r" .. bar .. "\27[K\r")
end

local function say(list)
  local now = sys.monotonic()
  for _, track in ipairs(list) do
    if now - track.said >= progress.PLAIN_EVERY then
      track.said = now
      local sample = track.sampler()
      log.info(progress.line(track.name, sample, now - track.began),
        { item = track.name, bytes_read = sample.read, bytes_stored = sample.stored })
    end
  end
end

local function report(list)
  for _, track in ipairs(list) do
    local sample = track.sampler()
    corelog.progress {
      item = track.name, read = sample.read, stored = sample.stored, total = sample.total,
      files = sample.files, seconds = sys.monotonic() - track.began,
    }
  end
end

function progress:tick()
  while true do
    task.sleep(self.mode == "bar" and progress.BAR_EVERY or 1)
    local list = self:sorted()
    if #list > 0 then
      report(list)
      if self.mode == "bar" then
        self:draw(list)
      elseif self.mode == "plain" then
        say(list)
      end
    end
  end
end

--- Stops showing. Idempotent.
function progress:close()
  if self.ticker then
    task.cancel(self.ticker, "progress ends")
    self.ticker = nil
    self:clear()
  end
end
progress.__close = progress.close

return progress
