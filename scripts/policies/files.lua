-- SPDX-License-Identifier: MIT
-- files: directories and files as one archive.
-- An item is named after the one PATH; several paths need --name.

local fs = require "lunark.fs"
local naming = require "lunark.naming"
local policy = require "lunark.policy"

-- The last part of a path; of "." and ".." the name of the directory that they stand for.
local function name_of(path)
  local last = path:gsub("/+$", ""):match("([^/]+)$")
  if last == "." or last == ".." then
    last = (fs.realpath(path) or ""):match("([^/]+)$")
  end
  return last
end

return policy {
  api = 1,
  name = "files",
  summary = "directories and files as one archive",
  needs = function(options)
    return { read = options.path }
  end,
  options = {
    path = { "list", positional = true, required = true, metavar = "PATH", help = "what to back up" },
    name = { "string", help = "name of the item (default: the last part of PATH)" },
    exclude = {
      "list", repeated = true, metavar = "PATTERN",
      help = "leave out what matches; can be given several times",
    },
    exclude_caches = { "boolean", default = false, help = "leave out folders with a CACHEDIR.TAG" },
    one_file_system = { "boolean", default = false, help = "stay on the file system of each PATH" },
  },
  check = function(options)
    if not options.name and #options.path > 1 then
      return nil, "several paths need a name", "add --name NAME"
    end
    local name = options.name or name_of(options.path[1])
    if not name then
      return nil, ("'%s' gives no name"):format(options.path[1]), "add --name NAME"
    end
    return naming.check_name(name)
  end,
  backup = function(job)
    local options = job.options
    job:save(options.name or name_of(options.path[1]), {
      paths = options.path, exclude = options.exclude, exclude_caches = options.exclude_caches,
      one_file_system = options.one_file_system,
    })
  end,
}
