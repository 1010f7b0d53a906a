-- SPDX-License-Identifier: MIT
-- faults.lua - what the programs of the fault tests (s3_faults.lua, gcs_faults.lua, azure_faults.lua) share.
local crypto = require "lunark.crypto"
local json = require "lunark.json"
local sys = require "lunark.core.sys"

local faults = {}

-- Bytes that no two places of a part have in common.
function faults.noise(size)
  local block = {}
  for index = 1, 4096 do block[index] = crypto.digest("sha256", tostring(index)) end
  local text = table.concat(block)
  return text:rep(size // #text + 1):sub(1, size)
end

-- Reads back what an upload has left under `big`: these bytes, with their mark.
function faults.read_back(store, body)
  local back <close> = assert(store:get("big"))
  local hashes, bytes = back:hash { "sha256" }
  assert(bytes == #body and hashes.sha256 == crypto.hex_digest("sha256", body), "not what was sent")
  assert(store:head("big").meta.mark == "yes")
end

-- Prints what became of a case, as JSON; `out` has what else is to be told.
function faults.report(result, err, out)
  out.ok = result ~= nil and result ~= false
  if err and sys.is_error(err) then
    for _, name in ipairs { "kind", "message", "hint", "code", "status", "retryable", "request_id" } do
      out[name] = err[name]
    end
  end
  io.stdout:write(json.encode(out), "\n")
end

return faults
