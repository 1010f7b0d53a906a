-- SPDX-License-Identifier: MIT
---@meta lunark.core.log
-- Documents runtime/lua_log.c for editors; never loaded.

---@class lunark.core.log
local log = {}

--- One line, secrets out.
---@param level "debug"|"info"|"warn"|"error"
---@param message any
---@param fields? table<string, any> item, key ...; at most 32
function log.write(level, message, fields) end

---@class lunark.core.log.Settings
---@field level? "debug"|"info"|"warn"|"error" what is written
---@field format? "text"|"json"
---@field to? 1|2|"host" a descriptor, or only the host's function
---@field fields? table<string, any> in every line from now on; false removes one

--- Changes what is given, for the whole runtime.
---@param settings lunark.core.log.Settings
function log.set(settings) end

--- Hands a progress record to the host, as JSON.
---@param record table strings, numbers, booleans, and tables of such
function log.progress(record) end

return log
