-- SPDX-License-Identifier: MIT
-- neo4j: which artifacts of Neo4j 5 belong together: a full one, and the differential ones that continue it.
-- neo4j-admin is asked; empty artifacts, made when nothing was new, hold nothing that a restore needs.

local command = require "policies.neo4j.command"
local exec = require "lunark.exec"
local folder = require "policies.neo4j.folder"
local log = require "lunark.log"

local chain = {}

-- Columns of its table.
local FULL, LOWEST, HIGHEST = 5, 7, 8

-- What neo4j-admin lists: file to {full=, empty=}. Some versions print names alone.
local function listed(text)
  local found = {}
  for line in text:gmatch("[^\n]+") do
    local file = line:match("([^/|%s]+%.backup)")
    if file then
      local cells = {}
      for cell in line:gmatch("[^|]+") do
        cells[#cells + 1] = cell:match("^%s*(.-)%s*$"):lower()
      end
      found[file] = { full = cells[FULL] == "true", empty = cells[LOWEST] == "0" and cells[HIGHEST] == "0" }
    end
  end
  return found
end

-- Back from the newest to the full one; nil where that is not among them.
local function back_to_full(artifacts, known, alone)
  local files = {}
  for i = #artifacts, 1, -1 do
    local one = known[artifacts[i].file]
    if not (one and one.empty) and (one or i == #artifacts) then
      table.insert(files, 1, artifacts[i])
    end
    if one and one.full then
      return files
    end
  end
  return alone and known[artifacts[#artifacts].file] and files or nil
end

--- The artifacts of the chain that ends with the newest one, oldest first.
---@param options table of the policy
---@param database string
---@param dir string
---@return lunark.neo4j.Artifact[]
function chain.of(options, database, dir)
  local artifacts = folder.artifacts(dir, database)
  if #artifacts < 2 then
    return artifacts
  end
  local argv, alone = command.inspect(options, database, dir)
  local result, err = exec.run(argv)
  local files = result and back_to_full(artifacts, listed(result.stdout), alone)
  if not files then
    log.warn(("%s: the chain of its backups is not known, all %d files are stored%s")
      :format(database, #artifacts, err and ": " .. err.message or ""), { item = database })
  end
  return files or artifacts
end

return chain
