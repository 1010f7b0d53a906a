-- SPDX-License-Identifier: MIT
-- Scripts that are found by name: the script directories in their order, then the embedded copies.
-- A file in a directory replaces the embedded one of the same relative name. Needs lunark.fs.

local fs = require "lunark.fs"
local sys = require "lunark.core.sys"

local scripts = {}

local function relative(embedded_name)
  return (embedded_name:gsub("^scripts/", ""))
end

-- Where scripts can be: the folders of the embedded ones, and what lies beside them in the directories.
local function all_folders(dirs)
  local seen, list = {}, {}
  local function add(folder)
    if folder and not seen[folder] then
      seen[folder] = true
      list[#list + 1] = folder
    end
  end
  for _, name in ipairs(sys.embedded_names()) do add(relative(name):match("^(.*)/[^/]*$")) end
  for _, dir in ipairs(dirs) do
    for _, kind in ipairs { "providers", "policies" } do
      for _, below in ipairs(fs.readdir(dir .. "/" .. kind) or {}) do
        if not below:find("%.lua$") then add(kind .. "/" .. below) end
      end
    end
  end
  return list
end

---@class lunark.scripts.Entry
---@field name string relative: "policies/files.lua"
---@field origin string path of the file, or "embedded"
---@field replaces boolean true when an embedded copy of that name is replaced

--- All scripts of a folder, one entry for each name, the one that is used.
---@param folder string|nil "policies", "providers", ...; nil = all
---@return lunark.scripts.Entry[]
function scripts.list(folder)
  local found = {}
  for _, embedded_name in ipairs(sys.embedded_names()) do
    local name = relative(embedded_name)
    if not folder or name:match("^(.*)/[^/]*$") == folder then
      found[name] = { name = name, origin = "embedded", replaces = false }
    end
  end
  local dirs = sys.script_dirs()
  local folders = folder and { folder } or all_folders(dirs)
  for i = #dirs, 1, -1 do
    for _, below in ipairs(folders) do
      for _, file in ipairs(fs.readdir(dirs[i] .. "/" .. below) or {}) do
        if file:find("^[%w_%-]+%.lua$") then
          local name = below .. "/" .. file
          local before = found[name]
          found[name] = {
            name = name, origin = dirs[i] .. "/" .. name,
            replaces = before ~= nil and (before.replaces or before.origin == "embedded"),
          }
        end
      end
    end
  end
  local list = {}
  for _, entry in pairs(found) do
    list[#list + 1] = entry
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

--- The text of a script.
---@param name string relative
---@return string|nil
---@return string|table origin, or err
function scripts.source(name)
  local source, origin = sys.find(name)
  if not source then
    return nil, sys.error { kind = "not_found", message = ("there is no script '%s'"):format(name) }
  end
  return source, origin
end

--- Compiles a script in an environment of its own.
---@param name string relative
---@return function|nil chunk
---@return table|nil err
---@return string|nil origin path, or the name of the embedded file
function scripts.load(name)
  local source, origin = scripts.source(name)
  if not source then
    return nil, origin
  end
  local shown = origin == "embedded" and name or origin
  local chunk, err = sys.load(shown, source)
  return chunk, err, shown
end

return scripts
