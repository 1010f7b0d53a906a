-- SPDX-License-Identifier: MIT
--- Uploads to Azure Blob Storage in blocks, which become an object with the list that names them.
--- https://learn.microsoft.com/rest/api/storageservices/put-block and put-block-list

local xml = require "lunark.xml"

local MiB = 1024 * 1024
local SLOW = 600 -- seconds without a byte: a long list of blocks takes the store a while
local LIST_MAX = 16 * MiB

local upload = {}

local Upload = {}
Upload.__index = Upload

--- What the answer to a write says of the object.
---@param size integer bytes
---@param headers table<string, string>
---@return table info
function upload.written(size, headers)
  local etag = headers["etag"] and headers["etag"]:match('^"?(.-)"?$')
  return { size = size, etag = etag, version = etag }
end

--- Begins an upload. Nothing is sent: a block has a name, its upload's id in it.
---@param store table of providers/azure.lua
---@param key string
---@param headers table<string, string> those of the object
---@return table upload of the provider contract
function upload.new(store, key, headers)
  local crypto = store.ctx.crypto
  return setmetatable({
    store = store, key = key, headers = headers,
    -- 18 bytes are 24 characters of base64, so all names begin alike.
    mark = crypto.base64(("lunark-%s-"):format(crypto.hex(crypto.random(5)))),
  }, Upload)
end

--- Sends one part.
---@return table? part {id, size}
function Upload:part(number, body)
  local store = self.store
  -- All blocks of a blob have names of one length.
  local id = self.mark .. store.ctx.crypto.base64(("%06d"):format(number))
  local response, err = store:send {
    op = "part", method = "PUT", key = self.key, query = { { "comp", "block" }, { "blockid", id } },
    headers = { ["content-md5"] = store:md5_of(body) }, body = body,
  }
  if not response then return nil, err end
  return { id = id, size = type(body) == "string" and #body or body.size }
end

-- The names of blocks: those of the object, and those that wait for a list, which have `size` bytes in all.
-- kind: "committed" or "all".
function Upload:blocks(kind)
  local response, err = self.store:send {
    op = "blocks", method = "GET", key = self.key, max = LIST_MAX,
    query = { { "comp", "blocklist" }, { "blocklisttype", kind } },
  }
  if not response then return nil, err end
  local root
  root, err = xml.parse((response.body:gsub("^\xEF\xBB\xBF", "")), "list of blocks of " .. self.key)
  if not root then return nil, err end
  local found = { committed = {}, waiting = {} }
  for part, list in pairs { CommittedBlocks = found.committed, UncommittedBlocks = found.waiting } do
    local parent = root:child(part)
    for block in parent and parent:each("Block") or function() end do
      list[#list + 1] = block:value("Name")
      list.size = (list.size or 0) + (tonumber(block:value("Size")) or 0)
    end
  end
  return found
end

--- Bytes of the blocks that wait under a name without an object; false where there are none.
---@param store table
---@param key string
---@return integer|false|nil
---@return table? err
function upload.waiting(store, key)
  local there, err = setmetatable({ store = store, key = key }, Upload):blocks("all")
  if not there then return nil, err end
  return #there.committed == 0 and #there.waiting > 0 and there.waiting.size
end

-- Whether the blob that is there consists of these parts: an earlier attempt was done, its answer lost.
function Upload:is_there(parts)
  local there = self:blocks("committed")
  if not there or #there.committed ~= #parts then return false end
  for index, part in ipairs(parts) do
    if there.committed[index] ~= part.id then return false end
  end
  return true
end

--- Makes the parts one object, which is visible from then on. "Latest" finds them also where an earlier
--- attempt has made them the object.
function Upload:finish(parts)
  local lines, size = { '<?xml version="1.0" encoding="utf-8"?><BlockList>' }, 0
  for index, part in ipairs(parts) do
    size = size + part.size
    lines[index + 1] = "<Latest>" .. part.id .. "</Latest>"
  end
  lines[#lines + 1] = "</BlockList>"
  local body, headers = table.concat(lines), {}
  for name, value in pairs(self.headers) do headers[name] = value end
  headers["content-type"] = "application/xml"
  headers["content-md5"] = self.store:md5_of(body)
  local response, err = self.store:send {
    op = "finish", method = "PUT", key = self.key, query = { { "comp", "blocklist" } }, headers = headers,
    body = body, idle_timeout = SLOW,
  }
  if response then return upload.written(size, response.headers) end
  if err.kind == "conflict" and headers["if-none-match"] and self:is_there(parts) then
    return self.store:head(self.key)
  end
  return nil, err
end

--- Removes the blocks. The store can only drop all that wait under a name, by deleting it; so that is done
--- where nothing else has the name: no object, and no block of another upload. Otherwise, or where reading or
--- deleting is not allowed, they stay, never visible, until the store throws them away after a week.
function Upload:abort()
  local there, err = self:blocks("all")
  if there and #there.committed == 0 and #there.waiting > 0 then
    for _, name in ipairs(there.waiting) do
      if name:sub(1, #self.mark) ~= self.mark then return true end
    end
    -- An object that came whole consists of no blocks.
    there, err = self.store:head(self.key)
    if not there and err.kind == "not_found" then
      there, err = self.store:send { op = "delete", method = "DELETE", key = self.key }
    end
  end
  if there or err.kind == "not_found" or err.kind == "auth" then return true end
  return nil, err
end

return upload
