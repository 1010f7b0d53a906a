-- SPDX-License-Identifier: MIT
-- Exit statuses of the command: which one an error asks for, and which one stands for several.

local sys = require "lunark.core.sys"

local exit = { OK = 0, FAILED = 1, USAGE = 2, UNREACHABLE = 3, DAMAGED = 4, PARTIAL = 5, TIMEOUT = 124 }

local BY_KIND = {
  usage = exit.USAGE,
  denied = exit.USAGE,
  auth = exit.UNREACHABLE,
  network = exit.UNREACHABLE,
  timeout = exit.UNREACHABLE,
  throttled = exit.UNREACHABLE,
  corrupt = exit.DAMAGED,
}

--- The status that one error asks for when it is alone and nothing was stored.
--- An error can carry a status of its own in the field `exit`.
---@param err any
---@return integer
function exit.of(err)
  if type(err) ~= "table" then
    return exit.FAILED
  end
  if err.exit then
    return err.exit
  elseif err.kind == "denied" and err.code then
    return exit.FAILED -- the system said no, not a missing capability
  end
  return BY_KIND[err.kind] or exit.FAILED
end

--- Gives an error a status of its own.
---@param err table
---@param status integer
---@return table err
function exit.with(err, status)
  err.exit = status
  return err
end

--- Marks what kept a store or source from being reached, before anything was stored or restored. What is
--- wrong with the command line or not allowed to it stays that.
---@param err table
---@return table err
function exit.unreachable(err)
  if err.kind == "usage" or err.kind == "corrupt" or (err.kind == "denied" and not err.code) then
    return err
  end
  return exit.with(err, exit.UNREACHABLE)
end

--- The status of a run with failures.
---@param failures table list of errors, at least one
---@param touched boolean|nil true when something was stored or restored all the same
---@return integer
function exit.combine(failures, touched)
  local all, seen = nil, {}
  for _, err in ipairs(failures) do
    local status = exit.of(err)
    seen[status] = true
    all = (all == nil or all == status) and status or exit.FAILED
  end
  if seen[exit.TIMEOUT] or seen[exit.DAMAGED] then
    return seen[exit.TIMEOUT] and exit.TIMEOUT or exit.DAMAGED
  elseif touched and (all == exit.UNREACHABLE or all == exit.USAGE) then
    return exit.FAILED
  end
  return all or exit.FAILED
end

--- Makes any raised value an error table.
---@param err any
---@return table
function exit.as_error(err)
  if sys.is_error(err) then
    return err
  end
  local meta = type(err) == "table" and getmetatable(err)
  local speaks = type(err) == "string" or type(meta) == "table" and meta.__tostring
  local ok, text = pcall(tostring, err)
  if not speaks or not ok or text == "" then
    text = ("a value of type %s was raised, a text or an error expected"):format(type(err))
  end
  return sys.error { kind = "io", message = text }
end

--- True for the error that stands for a cancelled task; such a one is always raised again.
---@param err any
---@return boolean
function exit.is_cancel(err)
  return type(err) == "table" and err.kind == "cancelled"
end

return exit
