-- SPDX-License-Identifier: MIT
-- lunark - all modules of the library under one name: `local lunark = require "lunark"`, then
-- `lunark.exec.run{...}`. Each is loaded when it is first used.
local sys = require "lunark.core.sys"

return setmetatable({ version = sys.version }, {
  __index = function(self, name)
    local module = require("lunark." .. name)
    rawset(self, name, module)
    return module
  end,
})
