-- SPDX-License-Identifier: MIT
--- What the answers of Google Cloud Storage mean: statuses and reasons of its JSON API to errors of
--- the library. https://cloud.google.com/storage/docs/json_api/v1/status-codes

local json = require "lunark.json"
local sys = require "lunark.core.sys"
local time = require "lunark.time"

local errors = {}

--- An error of this provider.
---@param kind string
---@param op string
---@param format string of the message
---@return nil
---@return table err
function errors.failed(kind, op, format, ...)
  return nil, sys.error { kind = kind, op = "gcs." .. op, message = format:format(...) }
end

--- What an answer means is not known, so it is asked again.
---@param op string
---@param format string of the message
---@return nil
---@return table err kind network, retryable
function errors.unclear(op, format, ...)
  local _, err = errors.failed("network", op, format, ...)
  err.retryable = true
  return nil, err
end

--- The JSON object of an answer whose status is fine. One with an error in it is none.
---@param response table of lunark.http
---@param r table {op, key}
---@return table?
---@return table? err kind network, retryable
function errors.decode(response, r)
  local body = json.decode(response.body or "")
  local subject = r.key or "the bucket"
  if type(body) ~= "table" then return errors.unclear(r.op, "%s: the answer is not JSON", subject) end
  if body.error == nil then return body end
  local inner = type(body.error) == "table" and body.error.message or body.error
  return errors.unclear(r.op, "%s: the answer of status %d has an error in it: %s", subject, response.status,
    tostring(inner))
end

local ROLE = "the roles of this account on the bucket do not allow it"
local PAYS = "the bucket's readers pay: these credentials may not bill the project of ?user_project="
local LIMIT = { "throttled", true }

-- reason -> kind, retryable, hint. Reasons that a status tells as well are not here.
local REASONS = {
  rateLimitExceeded = LIMIT, userRateLimitExceeded = LIMIT, quotaExceeded = LIMIT,
  concurrentLimitExceeded = LIMIT, dailyLimitExceeded = { "throttled", false },
  uploadBrokenConnection = { "network", true },
  authError = { "auth", false, "the token is not valid, or not any more" },
  forbidden = { "auth", false, ROLE },
  insufficientPermissions = {
    "auth", false, "the token's scope is too narrow: devstorage.read_write is needed",
  },
  accountDisabled = { "auth", false, "the billing account of the project is closed" },
  accessNotConfigured = { "auth", false, "enable the Cloud Storage API in the project" },
  userProjectMissing = { "auth", false, "the bucket's readers pay: name their project in ?user_project=" },
  authenticationRequiredRequesterPays = { "auth", false, PAYS },
  userProjectAccessDenied = { "auth", false, PAYS },
  userProjectInvalid = { "usage", false, "check ?user_project=" },
  userProjectInconsistent = { "usage", false, "check ?user_project=" },
  orgPolicyConstraintFailed = { "denied", false, "a policy of the organization forbids it" },
  retentionPolicyNotMet = {
    "denied", false, "the bucket's retention policy keeps what is there", locked = true,
  },
  objectUnderActiveHold = { "denied", false, "the object is on hold", locked = true },
  uploadTooLarge = { "io", false, "an object has at most 5 TiB" },
  wrongUrlForUpload = { "usage", false }, invalidArgument = { "usage", false },
}

local function of_status(status)
  if status == 401 or status == 403 then return "auth", false end
  if status == 404 or status == 410 then return "not_found", false end
  if status == 408 then return "timeout", true end
  if status == 409 or status == 412 then return "conflict", false end
  if status == 416 then return "usage", false end
  if status == 429 then return "throttled", true end
  if status == 501 then return "io", false end
  if status == 503 then return "throttled", true end
  if status >= 500 then return "network", true end
  return "io", false
end

-- reason and message of the answer's body; the body of a download or of a bad proxy may be anything.
local function words_of(response)
  local body = json.decode(response.body or "")
  local err = type(body) == "table" and body.error
  if type(err) ~= "table" then return nil, nil end
  local first = type(err.errors) == "table" and err.errors[1]
  local reason = type(first) == "table" and first.reason or nil
  return type(reason) == "string" and reason or nil, type(err.message) == "string" and err.message or nil
end

--- True when the answer says that the bucket is missing, not the object.
---@param message string?
---@return boolean
function errors.is_bucket(message)
  return message ~= nil and message:find("bucket.*not exist") ~= nil
end

local function message_of(status, kind, reason, message, context)
  local bucket = ("bucket %s at %s"):format(context.bucket, context.endpoint)
  local subject = context.key or bucket
  if status == 404 then
    if not context.key or errors.is_bucket(message) then
      return bucket .. ": there is no such bucket", "make the bucket, or check its name"
    end
    return subject .. ": there is no such object"
  elseif status == 412 and kind == "conflict" then
    return subject .. ": the object is there already, or has changed"
  end
  local words = message and message ~= "" and message or ("HTTP status %d"):format(status)
  words = words:gsub("%.%s*$", ""):gsub("%s+", " ")
  if reason and words ~= reason then words = ("%s (%s)"):format(words, reason) end
  return ("%s: %s"):format(subject, words)
end

--- The error that a response stands for.
---@param response table of lunark.http
---@param context table {op, bucket, key, endpoint, source, now}
---@return table err with `retry_after` where the response has it
function errors.classify(response, context)
  local status = response.status
  local reason, message = words_of(response)
  local kind, retryable = of_status(status)
  local known = reason and REASONS[(reason:gsub("^%u", string.lower))]
  if known then kind, retryable = known[1], known[2] or false end
  if status == 400 and message and message:find("doesn't match calculated", 1, true) then kind = "corrupt" end
  local text, hint = message_of(status, kind, reason, message, context)
  hint = hint or known and known[3] or kind == "corrupt" and "the bytes were changed on their way" or nil
  if kind == "auth" then
    hint = hint or status == 403 and ROLE or "the store refuses these credentials"
    if context.source then hint = ("%s; the credentials are from %s"):format(hint, context.source) end
  end
  local err = sys.error {
    kind = kind, op = context.op, status = status, retryable = retryable, hint = hint, message = text,
    code = reason, request_id = response.request_id or response.headers["x-guploader-uploadid"],
  }
  local after = response.headers["retry-after"]
  err.retry_after = after and (tonumber(after) or (time.parse_http(after) or context.now) - context.now)
  err.locked = known and known.locked
  err.no_bucket = status == 404 and errors.is_bucket(message) or nil
  return err
end

return errors
