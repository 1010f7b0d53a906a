-- SPDX-License-Identifier: MIT
-- Locks on folders: a file in them that one run holds. The system lets go of it when the process ends,
-- however that happens, so what is left behind with a lock that nobody holds is of a run that is over.
-- Needs read and write for the folder.

local file = require "lunark.file"
local fs = require "lunark.fs"
local sys = require "lunark.core.sys"

local lock = {}

--- The file that is locked; it stays.
lock.NAME = ".lunark-lock"

--- Locks a folder.
---@param dir string
---@return lunark.File|nil lock to-be-closed
---@return table|nil err kind conflict when another run has it
function lock.take(dir)
  local opened, err = file.open(dir .. "/" .. lock.NAME, "w")
  if not opened then
    return nil, err
  end
  local ok
  ok, err = opened:lock()
  if ok then
    return opened
  end
  opened:close()
  if err.kind == "conflict" then
    err = sys.error {
      kind = "conflict", op = "lock", message = ("%s is in use by another run"):format(dir),
      hint = "wait for its end, or give each run a folder of its own",
    }
  end
  return nil, err
end

--- Removes the folders of runs that are over: those with a lock that nobody holds.
---@param base string the folder in which they are
---@param pattern string Lua pattern of their names
---@return string[] removed
function lock.sweep(base, pattern)
  local removed = {}
  for _, name in ipairs(fs.readdir(base) or {}) do
    local path = base .. "/" .. name
    if name:find(pattern) and fs.exists(path .. "/" .. lock.NAME) then
      local held <close> = lock.take(path)
      if held and fs.remove_all(path) then
        removed[#removed + 1] = path
      end
    end
  end
  return removed
end

return lock
