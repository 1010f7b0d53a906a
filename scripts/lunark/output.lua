-- SPDX-License-Identifier: MIT
-- What commands print on standard output: JSON, tables of text, and errors as JSON shows them.

local json = require "lunark.json"
local manifest = require "lunark.manifest"
local sys = require "lunark.core.sys"

local output = {}

--- Prints a value as one JSON document.
---@param value table
---@return true|nil
---@return table|nil err
function output.json(value)
  return sys.write(1, json.encode(value, "  ") .. "\n")
end

--- An error as JSON shows it.
---@param err table
---@return table
function output.plain_error(err)
  return {
    kind = err.kind, message = manifest.shown(err.message), hint = manifest.shown(err.hint), item = err.item,
    store = err.url, code = math.tointeger(err.code),
  }
end

--- A list of errors as JSON shows it.
---@param failures table
---@return table
function output.errors_json(failures)
  local out = json.array {}
  for i, err in ipairs(failures) do
    out[i] = output.plain_error(err)
  end
  return out
end

--- Rows of cells as text, each column as wide as what is in it.
---@param rows string[][]
---@param right table columns that are set to the right: {[3] = true}
---@return string
function output.columns(rows, right)
  local widths = {}
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do
      widths[i] = math.max(widths[i] or 0, utf8.len(cell) or #cell)
    end
  end
  local lines = {}
  for n, row in ipairs(rows) do
    local cells = {}
    for i, cell in ipairs(row) do
      local pad = (" "):rep(widths[i] - (utf8.len(cell) or #cell))
      cells[i] = right[i] and pad .. cell or cell .. pad
    end
    lines[n] = table.concat(cells, "  "):gsub("%s+$", "")
  end
  return table.concat(lines, "\n") .. "\n"
end

--- A name or key as it can stand in a line.
---@param name string
---@return string
function output.shown_name(name)
  return (name:gsub("%c", "?"))
end

return output
