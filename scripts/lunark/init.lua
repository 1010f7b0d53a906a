-- SPDX-License-Identifier: MIT
-- lunark - all modules of the library under one name: `local lunark = require "lunark"`, then
-- `lunark.exec.run{...}`. Each is loaded when it is first used.
local sys = require "lunark.core.sys"

local function modules(prefix)
  return setmetatable({}, {
    __index = function(self, name)
      local module = require(prefix .. name)
      rawset(self, name, module)
      return module
    end,
  })
end

local M = modules("lunark.")
M.version = sys.version
M.core = modules("lunark.core.")
return M
