-- SPDX-License-Identifier: MIT
--- Uploads to Google Cloud Storage: one resumable session takes the bytes in turn. After a broken request
--- it is asked how much it has. https://cloud.google.com/storage/docs/performing-resumable-uploads

local checks = require "providers.gcs.checks"
local gcs_error = require "providers.gcs.errors"

local failed, unclear = gcs_error.failed, gcs_error.unclear
local KiB = 1024
local ALIGN = 256 * KiB -- a session keeps multiples of it, until the end is told
local SLOW = 300 -- seconds without a byte: finishing and copying may take the store that long
local INCOMPLETE = 308 -- "Resume Incomplete"
local CANCELLED = 499 -- the answer to the end of a session

local upload = { ALIGN = ALIGN, SLOW = SLOW }

local Upload = {}
Upload.__index = Upload

--- An upload by the session that an answer gives.
---@param store table of providers/gcs.lua
---@param resource table what the object begins with
---@param response table the answer
---@return table? upload of the provider contract
---@return table? err
function upload.new(store, resource, response)
  -- Requests go to where this one went, whatever host the answer names; the query is the key to the session.
  local path, query = (response.headers["location"] or ""):match("^https?://[^/]+([^?]*)%?(.+)$")
  if not path then return unclear("begin", "%s: the store gives no upload session", resource.name) end
  return setmetatable({
    store = store, resource = resource, path = path, session = store.ctx.secret(query), number = 0,
    first = 0, -- where the part `number` begins
    size = 0, -- where it ends
    stored = 0, -- bytes that the session has
  }, Upload)
end

function Upload:send(op, range, body, headers)
  headers = headers or {}
  headers["content-range"] = range
  return self.store:send {
    op = op, method = "PUT", path = self.path, query = self.session:reveal(), key = self.resource.name,
    body = body, headers = headers, also = INCOMPLETE, idle_timeout = SLOW,
  }
end

-- What an answer of the session says: that it has so many bytes, or that there is an object now.
function Upload:hear(response, op)
  if response.status ~= INCOMPLETE then
    local object, err = gcs_error.decode(response, { op = op, key = self.resource.name })
    if object then object, err = checks.described(object, self.resource.name) end
    self.object = object
    return object and true, err
  end
  local last = (response.headers["range"] or ""):match("^bytes=0%-(%d+)$")
  local stored = last and math.tointeger(tonumber(last)) + 1 or 0
  self.stored = stored - stored % ALIGN -- what is beyond is sent again
  return true
end

-- Asks how much the session has, or whether it is done.
function Upload:ask(op, total)
  local response, err = self:send(op, ("bytes */%s"):format(total or "*"), "")
  if not response then return nil, err end
  local ok
  ok, err = self:hear(response, op)
  self.unsure = not ok
  return ok, err
end

-- Sends what the session lacks of a body that begins at `first`; with `total` the object ends with it.
function Upload:send_rest(op, body, first, total, headers)
  local at, last = self.stored, first + checks.size(body) - 1
  if at < first then
    return failed("conflict", op, "%s: the session has lost bytes that it had confirmed", self.resource.name)
  end
  local rest = at == first and body or checks.text(body):sub(at - first + 1)
  local range = at <= last and ("%d-%d"):format(at, last) or "*"
  self.unsure = true -- until an answer is there
  local response, err = self:send(op, ("bytes %s/%s"):format(range, total or "*"), rest, headers)
  local ok
  if response then
    ok, err = self:hear(response, op)
    self.unsure = not ok
  elseif err.status == 400 or err.status == 416 then
    -- The session may have these bytes: what has arrived twice is refused.
    ok = self:ask(op, total)
    if not self.object and self.stored <= at then return nil, err end
  end
  if not ok then return nil, err end
  if self.object or self.stored > at then return true end
  self.unsure = true
  return unclear(op, "%s: the session takes no more bytes", self.resource.name)
end

-- Brings a body into the session; with `total` until there is an object.
function Upload:advance(body, first, total, headers)
  local op, size = total and "finish" or "part", checks.size(body)
  while not self.object do
    local ok, err = true, nil
    if self.unsure then ok, err = self:ask(op, total) end
    if ok and not self.object then
      if not total and self.stored >= first + size then return true end
      ok, err = self:send_rest(op, body, first, total, headers)
    end
    if not ok then return nil, err end
  end
  if total then return true end
  return failed("corrupt", op, "%s: the session was closed in the middle", self.resource.name)
end

local function gone(self, err)
  if err.status == 404 or err.status == 410 then
    err.kind = "io" -- no `conflict`: the key is not taken
    err.message = ("%s: the store knows nothing of this upload any more"):format(self.resource.name)
    err.hint = "its session has ended: after a week, or because somebody has ended it"
  end
  return nil, err
end

--- Sends one part; parts come in turn. The last one is kept for `finish`, which tells the end.
function Upload:part(number, body)
  local size = checks.size(body)
  if number == self.number + 1 and not self.tail then
    self.number, self.first, self.size = number, self.size, self.size + size
  elseif number ~= self.number then
    return failed("usage", "part",
      "%s: part %d after part %d: they come in turn, all but the last multiples of %d KiB",
      self.resource.name, number, self.number, ALIGN // KiB)
  end
  if size % ALIGN ~= 0 or type(body) ~= "string" and body.last then
    self.tail = self.tail or (type(body) == "string" and body or body:ref())
  else
    local ok, err = self:advance(body, self.first)
    if not ok then return gone(self, err) end
  end
  return { size = size, crc = checks.crc(body) }
end

-- The bytes are not those that were sent: nobody shall read them.
local function remove_damaged(self, object, err)
  err.retryable = false
  local removed = self.store:send {
    op = "delete", method = "DELETE", path = self.store:path(self.resource.name), key = self.resource.name,
    query = { { "generation", object.generation } },
  }
  err.hint = removed and "the damaged object was removed" or "the damaged object could not be removed"
  return nil, err
end

--- Sends what is left and tells the end: from then on the object is visible.
function Upload:finish(parts)
  local crc, total = checks.of_parts(parts)
  local sent = { size = total, crc = crc }
  local ok, err = self:advance(self.tail or "", self.tail and self.first or self.size, total, {
    ["x-goog-hash"] = "crc32c=" .. checks.encode(crc),
  })
  if not ok then
    -- An earlier attempt may have been done, its answer lost.
    if err.status == 404 or err.status == 410 or err.status == 412 then
      local info = self.store:written_before(self.resource, sent, err)
      if info then return info end
    end
    return gone(self, err)
  end
  ok, err = checks.object(self.object, sent, self.resource.name)
  if not ok then return remove_damaged(self, self.object, err) end
  self:release()
  return checks.info(self.object)
end

function Upload:release()
  if self.tail and type(self.tail) ~= "string" then self.tail:close() end
  self.tail = nil
end

--- Ends the session, and what it holds.
function Upload:abort()
  self:release()
  local response, err = self.store:send {
    op = "abort", method = "DELETE", path = self.path, query = self.session:reveal(),
    key = self.resource.name, also = CANCELLED,
  }
  if response or err.status == 404 or err.status == 410 then return true end
  return nil, err
end

return upload
