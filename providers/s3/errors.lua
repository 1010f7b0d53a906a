-- SPDX-License-Identifier: MIT
--- What the answers of S3 and its relatives mean: error codes and statuses to errors of the
--- library.

local sys = require "lunark.core.sys"
local time = require "lunark.time"
local xml = require "lunark.xml"

local errors = {}

local CLOCK = "set this machine's clock"
local REGION = "check the region: ?region="
local LONG = "a key has at most 1,024 bytes"
local KMS = "check sse_kms_key_id, and that these credentials may use the key"
local LOST_PARTS = "the store lost a part, or a lifecycle rule removed it: begin the backup again"
local QUOTA = "the store's quota is used up"
local KEYS = "check the access key, the secret key and the endpoint they belong to"

-- code -> kind, retryable, hint
local CODES = {
  AccessDenied = { "auth", false, "the policy of this key or of the bucket does not allow it" },
  AccountProblem = { "auth", false },
  AllAccessDisabled = { "auth", false },
  AuthorizationHeaderMalformed = { "auth", false, REGION },
  BucketAlreadyOwnedByYou = { "conflict", false },
  ConditionalRequestConflict = { "conflict", true },
  EntityTooLarge = { "io", false },
  EntityTooSmall = { "io", false },
  ExpiredToken = { "auth", false, "the session's credentials have expired: get new ones" },
  IllegalLocationConstraintException = { "usage", false, REGION },
  InternalError = { "network", true },
  InvalidAccessKeyId = { "auth", false, "the store does not know this access key" },
  IncompleteBody = { "network", true }, -- the store got less than was sent
  InvalidArgument = { "io", false },
  InvalidBucketName = { "usage", false },
  InvalidBucketState = { "io", false },
  InvalidDigest = { "io", false },
  InvalidEncryptionAlgorithmError = { "usage", false, "check ?sse=" },
  InvalidObjectState = { "io", false, "it is archived: restore it in the store first", archived = true },
  InvalidPart = { "io", false, LOST_PARTS },
  InvalidPartOrder = { "io", false },
  InvalidRequest = { "io", false },
  InvalidSecurity = { "auth", false },
  InvalidStorageClass = { "usage", false, "check ?storage_class=" },
  InvalidToken = { "auth", false, "check AWS_SESSION_TOKEN: it belongs to a pair of keys" },
  KeyTooLongError = { "usage", false, LONG },
  KeyTooLong = { "usage", false, LONG },
  MalformedXML = { "io", false },
  MetadataTooLarge = { "usage", false },
  MethodNotAllowed = { "io", false },
  NoSuchBucket = { "not_found", false, "make the bucket, or check its name and the endpoint" },
  NoSuchKey = { "not_found", false },
  NoSuchUpload = { "conflict", false, "the upload was aborted, perhaps by a lifecycle rule" },
  NotImplemented = { "io", false },
  ObjectLocked = { "denied", false, "object lock keeps it until its retention ends", locked = true },
  OperationAborted = { "conflict", true },
  PermanentRedirect = { "usage", false, REGION },
  PreconditionFailed = { "conflict", false },
  RequestTimeTooSkewed = { "auth", false, CLOCK },
  RequestTimeout = { "timeout", true },
  ServiceUnavailable = { "throttled", true },
  SignatureDoesNotMatch = { "auth", false, KEYS },
  SlowDown = { "throttled", true },
  TemporaryRedirect = { "usage", false, REGION },
  Throttling = { "throttled", true },
  ThrottlingException = { "throttled", true },
  TokenRefreshRequired = { "auth", false },
  TooManyRequests = { "throttled", true },
  XAmzContentSHA256Mismatch = { "corrupt", true },
  BadDigest = { "corrupt", true },
  XMinioStorageFull = { "io", false, "the store is full" },
  QuotaExceeded = { "io", false, QUOTA },
  XMinioAdminBucketQuotaExceeded = { "io", false, QUOTA },
}

-- Codes of the key service, which come through the store.
local function of_kms(code)
  if not code:find("^KMS%.") and not code:find("^kms:") then return nil end -- Amazon's, MinIO's
  if code == "KMS.ThrottlingException" then return { "throttled", true } end
  return { code:find("NotFound") and "usage" or "auth", false, KMS }
end

local function of_status(status)
  if status >= 300 and status < 400 then return "usage", false end
  if status == 401 or status == 403 then return "auth", false end
  if status == 404 or status == 410 then return "not_found", false end
  if status == 408 then return "timeout", true end
  if status == 409 or status == 412 then return "conflict", status == 409 end
  if status == 416 then return "usage", false end
  if status == 429 or status == 503 then return "throttled", true end
  if status == 501 then return "io", false end
  if status >= 500 then return "network", true end
  return "io", false
end

-- Tells what it was about: the key, or the bucket and where it was looked for.
local function subject(code, context)
  if code == "NoSuchBucket" then
    return ("bucket %s at %s"):format(context.bucket, context.endpoint or "the store")
  end
  if context.key then return context.key end
  return "bucket " .. context.bucket
end

local MESSAGES = {
  NoSuchBucket = "there is no such bucket",
  NoSuchKey = "there is no such object",
  PreconditionFailed = "the object is there already",
}
local CHANGED = "the original or what it replaces changed while it was copied"
local STALE = {
  ExpiredToken = true, InvalidAccessKeyId = true, InvalidToken = true, TokenRefreshRequired = true,
}

--- An error of one code, without a response of its own (an entry of a batch).
---@param code string
---@param message string? the store's words
---@param context table {op, bucket, key, endpoint, source}
---@return table err
function errors.of_code(code, message, context, status)
  local known = CODES[code] or of_kms(code)
  local kind, retryable = of_status(status or 500)
  if known then kind, retryable = known[1], known[2] end
  local words = MESSAGES[code] or message
  if code == "PreconditionFailed" and context.op == "s3.copy" then words = CHANGED end
  if not words or words == "" then words = code ~= "" and code or ("HTTP status %d"):format(status or 0) end
  words = words:gsub("%.%s*$", ""):gsub("^%u%l", string.lower)
  if code ~= "" and not MESSAGES[code] and words ~= code then words = ("%s (%s)"):format(words, code) end
  local hint = known and known[3] or status and status >= 300 and status < 400 and REGION or nil
  if kind == "auth" and context.source and hint ~= CLOCK then
    hint = hint or "the store refuses these credentials"
    hint = ("%s; the credentials are from %s"):format(hint, context.source)
  end
  local err = sys.error {
    kind = kind, op = context.op, status = status, retryable = retryable, hint = hint,
    message = ("%s: %s"):format(subject(code, context), words), code = code ~= "" and code or nil,
  }
  err.locked, err.archived = known and known.locked, known and known.archived
  return err
end

local function body_of(response)
  if not response.body or not response.body:find("^%s*<") then return nil end
  local root = xml.parse(response.body)
  return root and root.name == "Error" and root or nil
end

-- A server's date beside ours, when it says that ours is wrong.
-- An answer to HEAD gives no reason: 15 minutes are what S3 allows.
local function skew_of(response, code, now)
  local silent = code == "" and response.status == 403
  if code ~= "RequestTimeTooSkewed" and not silent then return nil end
  local theirs = time.parse_http(response.headers["date"])
  if not theirs or (silent and math.abs(theirs - now) <= 900) then return nil end
  return theirs - now
end

--- The error that a response stands for.
---@param response table of lunark.http
---@param context table {op, bucket, key, endpoint, region, source, now}
---@return table err with `retry_after` and `skew` where the response has them
function errors.classify(response, context)
  local root = body_of(response)
  local code = root and root:value("Code") or ""
  local status = response.status
  -- An error inside of a 200 says that the store failed midway.
  if status == 200 then status = 500 end
  if code == "" and status == 404 then code = context.key and "NoSuchKey" or "NoSuchBucket" end
  if code == "" and status == 412 then code = "PreconditionFailed" end
  local err = errors.of_code(code, root and root:value("Message"), context, status)
  err.request_id = response.request_id
  local after = response.headers["retry-after"]
  err.retry_after = after and (tonumber(after) or (time.parse_http(after) or context.now) - context.now)
  err.skew = skew_of(response, code, context.now)
  return err
end

--- True when other credentials may be let in where these are not: they have ended, or were replaced.
---@param err table
---@param r table the request
---@return boolean
function errors.is_stale(err, r)
  if err.code then return STALE[err.code] or false end
  -- S3 says so with 400, and an answer to HEAD has no body.
  return r.method == "HEAD" and err.status == 400 and r.keys ~= nil and r.keys.session_token ~= nil
end

--- The region that a store says a bucket is in, when it refuses a request because of that.
---@param response table
---@return string?
function errors.region_of(response)
  if response.status ~= 400 and (response.status < 300 or response.status > 399) then return nil end
  local region = response.headers["x-amz-bucket-region"]
  if region then return region end
  local root = body_of(response)
  local code = root and root:value("Code")
  if code == "AuthorizationHeaderMalformed" or code == "PermanentRedirect" or code == "TemporaryRedirect" then
    return root:value("Region")
  end
end

return errors
