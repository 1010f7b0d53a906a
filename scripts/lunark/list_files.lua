-- SPDX-License-Identifier: MIT
-- `lunark list --files`: the entries of one archive, one on a line, as text or as JSON.

local contents = require "lunark.contents"
local crypto = require "lunark.crypto"
local exit = require "lunark.exit"
local json = require "lunark.json"
local manifest = require "lunark.manifest"
local restore = require "lunark.restore"
local stream = require "lunark.stream"
local sys = require "lunark.core.sys"
local task = require "lunark.task"

local list_files = {}

local BATCH = 500 -- lines that are written at once

local KINDS = {
  ["0"] = "-", ["1"] = "h", ["2"] = "l", ["3"] = "c", ["4"] = "b", ["5"] = "d", ["6"] = "p",
}
local NAMES = {
  ["0"] = "file", ["1"] = "hard link", ["2"] = "link", ["3"] = "character device", ["4"] = "block device",
  ["5"] = "directory", ["6"] = "fifo",
}

-- "drwxr-xr-x" for a type and a mode, as ls has it; `h` is a hard link to an entry before it.
local function mode_text(type, mode)
  local text = { KINDS[type] or "?" }
  for shift = 6, 0, -3 do
    local bits, special = mode >> shift & 7, mode >> (9 + shift // 3) & 1 == 1
    text[#text + 1] = bits & 4 ~= 0 and "r" or "-"
    text[#text + 1] = bits & 2 ~= 0 and "w" or "-"
    local run = bits & 1 ~= 0
    if special then
      local letter = shift == 0 and "t" or "s"
      text[#text + 1] = run and letter or letter:upper()
    else
      text[#text + 1] = run and "x" or "-"
    end
  end
  return table.concat(text)
end

local function cached(make)
  local known, count = {}, 0
  return function(a, b)
    local key = b and a .. b or a
    local text = known[key]
    if not text then
      if count > 4096 then
        known, count = {}, 0
      end
      text, count = make(a, b), count + 1
      known[key] = text
    end
    return text
  end
end

-- A time to the second, as in RFC 3339; "@SECONDS" for what no calendar has.
local function moment_text(seconds)
  local ok, text = pcall(os.date, "!%Y-%m-%dT%H:%M:%S", seconds)
  return ok and text or ("@%d"):format(seconds)
end

-- `rest` goes behind the seconds of a time that a calendar has.
local function with_rest(moment, rest)
  return moment:byte() == 64 and moment or moment .. rest
end

local function text_line()
  local mode = cached(mode_text)
  local moment = cached(function(seconds) return with_rest(moment_text(seconds), "Z") end)
  local format, find, gsub = string.format, string.find, string.gsub
  return function(record)
    local path = record.path
    if find(path, "%c") then
      path = gsub(path, "%c", "?")
    end
    return format("%s %12d %s %s\n", mode(record.type, record.mode), record.size, moment(record.mtime), path)
  end
end

local function json_line()
  local moment = cached(moment_text)
  return function(record)
    local fraction = record.mtime_ns > 0 and (".%09d"):format(record.mtime_ns) or ""
    return json.encode {
      path = manifest.shown(record.path), type = NAMES[record.type] or record.type, size = record.size,
      mode = ("%04o"):format(record.mode & 4095), mtime = with_rest(moment(record.mtime), fraction .. "Z"),
      sha256 = record.sha256 and crypto.hex(record.sha256) or nil,
    } .. "\n"
  end
end

-- Writes a line for each entry; how many.
local function write_all(writer, line, store, backup, globs, seen)
  local lines, count = {}, 0
  for record, err in contents.each(store, backup, globs, seen) do
    if not record then
      return nil, err
    end
    count = count + 1
    lines[#lines + 1] = line(record)
    if #lines == BATCH then
      local ok
      ok, err = writer:write(table.concat(lines))
      if not ok then
        return nil, err
      end
      lines = {}
    end
  end
  local ok, err = writer:write(table.concat(lines))
  return ok and count, err
end

local function unmatched(backup, globs, seen)
  local missing = {}
  for _, glob in ipairs(globs or {}) do
    missing[#missing + 1] = not seen[glob] and glob or nil
  end
  if #missing == 0 then
    return nil
  end
  return exit.with(sys.error {
    kind = "not_found",
    message = ("nothing in %s matches %s"):format(backup.key, table.concat(missing, ", ")),
  }, exit.FAILED)
end

--- Prints what is in the archive of a backup.
---@param store table lunark.store
---@param options table {item=, at=, path=, json=}
---@return true|nil
---@return table|nil err
function list_files.run(store, options)
  local backup, err = restore.find(store, options.item, options.at)
  if not backup then
    return nil, err
  elseif not backup.suffix:find("^%.tar") and backup.suffix ~= ".tgz" then
    return nil, sys.error {
      kind = "usage", message = backup.key .. " is the output of a program: there are no files in it",
    }
  end
  local out, writer = assert(stream.pipe())
  local printing = task.spawn(function() return out:to_stdout() end)
  local seen, line = {}, options.json and json_line() or text_line()
  local count
  count, err = write_all(writer, line, store, backup, options.path, seen)
  writer:finish(not count and err or nil)
  local _, printed, why = task.join(printing)
  if not count then
    return nil, why and why.code and why or err
  elseif not printed then
    return nil, why
  end
  err = unmatched(backup, options.path, seen)
  if err then
    return nil, err
  end
  return true
end

return list_files
