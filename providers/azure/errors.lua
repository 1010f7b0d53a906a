-- SPDX-License-Identifier: MIT
--- What the answers of Azure Blob Storage mean: error codes and statuses to errors of the library.

local sys = require "lunark.core.sys"
local time = require "lunark.time"
local xml = require "lunark.xml"

local errors = {}

local KEYS = "check the account's name, the key or token, and whether it has expired"
local ENDED = "the shared access signature has expired: make a new one"
local CLOCK = "set this machine's clock"
local TIER = "check ?access_tier="
local ROLE = "the role Storage Blob Data Contributor has it; a SAS names it in sp="

-- code -> kind, retryable, hint
local CODES = {
  AccountBeingCreated = { "network", true },
  AccountIsDisabled = { "auth", false },
  AccountRequiresHttps = { "usage", false, "write https:// in the endpoint" },
  AuthenticationFailed = { "auth", false, KEYS },
  AuthorizationFailure = {
    "auth", false, "the account's firewall or its rules keep this network or identity out (Azurite: or the "
      .. "key is wrong)",
  },
  AuthorizationPermissionMismatch = { "auth", false, "a permission is missing: " .. ROLE },
  AuthorizationProtocolMismatch = { "auth", false, "the SAS is for https only" },
  AuthorizationResourceTypeMismatch = {
    "auth", false, "the SAS is for other kinds of resources: srt=co is needed",
  },
  AuthorizationServiceMismatch = { "auth", false, "the SAS is for other services: ss=b is needed" },
  AuthorizationSourceIPMismatch = { "auth", false, "the SAS is for other addresses: sip=" },
  BlobAlreadyExists = { "conflict", false },
  BlobArchived = {
    "io", false, "it is in the archive tier: rehydrate it, which takes hours", archived = true,
  },
  BlobBeingRehydrated = {
    "io", false, "it is on its way out of the archive tier: wait some hours", archived = true,
  },
  BlobAccessTierNotSupportedForAccountType = { "usage", false, TIER },
  BlobImmutableDueToLegalHold = {
    "conflict", false, "a legal hold of the container or the blob forbids changes", locked = true,
  },
  BlobImmutableDueToPolicy = {
    "conflict", false, "a policy of the container or the blob forbids changes", locked = true,
  },
  BlobNotFound = { "not_found", false },
  BlobOperationNotSupported = { "io", false, "another interface (Data Lake) has made a blob of that name" },
  BlobTierInadequateForContentLength = { "usage", false, TIER },
  BlockCountExceedsLimit = { "io", false },
  ConditionNotMet = { "conflict", false },
  ContainerBeingDeleted = { "conflict", true },
  ContainerDisabled = { "auth", false, "the container was disabled by its administrator" },
  ContainerNotFound = { "not_found", false, "make the container, or check its name and the account" },
  Crc64Mismatch = { "corrupt", true },
  InsufficientAccountPermissions = { "auth", false },
  InternalError = { "network", true },
  InvalidAuthenticationInfo = { "auth", false, KEYS },
  InvalidBlobOrBlock = {
    "conflict", false, "an unfinished upload of another program has this name: it goes after a week",
  },
  InvalidBlockList = {
    "conflict", false, "another upload to this name threw the blocks away: begin the backup again",
  },
  InvalidBlobTier = { "usage", false, TIER },
  InvalidRange = { "usage", false },
  KeyBasedAuthenticationNotPermitted = { "auth", false, "the account takes no keys: use an identity" },
  LeaseIdMissing = { "conflict", false, "somebody holds a lease on it" },
  Md5Mismatch = { "corrupt", true },
  NoAuthenticationInformation = { "auth", false },
  OperationTimedOut = { "timeout", true },
  PendingCopyOperation = { "conflict", true },
  PublicAccessNotPermitted = { "auth", false },
  ResourceNotFound = { "not_found", false },
  ServerBusy = { "throttled", true },
  SnapshotsPresent = {
    "conflict", false, "it has snapshots, which are not deleted here: delete those first",
  },
  UnauthorizedBlobOverwrite = {
    "conflict", false, "these credentials may create blobs and not replace them",
  },
}

local SILENT = {
  AuthenticationFailed = "the store does not know who asks",
  AuthorizationPermissionMismatch = "these credentials may not do this",
}

local MESSAGES = {
  BlobAlreadyExists = "the object is there already",
  BlobNotFound = "there is no such object",
  ContainerNotFound = "there is no such container",
}

local function of_status(status)
  if status == 401 or status == 403 then return "auth", false end
  if status == 404 or status == 410 then return "not_found", false end
  if status == 408 then return "timeout", true end
  if status == 409 or status == 412 then return "conflict", false end
  if status == 416 then return "usage", false end
  if status == 429 or status == 503 then return "throttled", true end
  if status == 501 or status == 507 then return "io", false end
  if status >= 500 then return "network", true end
  return "io", false
end

local function body_of(response)
  if not response.body or not response.body:find("<", 1, true) then return nil end
  local root = xml.parse((response.body:gsub("^\xEF\xBB\xBF", "")))
  return root and root.name == "Error" and root or nil
end

-- Microsoft's messages end with lines of request id and time. An answer to HEAD has none.
local function words_of(root, code, status)
  local words = root and root:value("Message") or ""
  words = words:match("^[^\r\n]*"):gsub("%s*RequestId:.*$", ""):gsub("%.%s*$", ""):gsub("^%u%l", string.lower)
  if MESSAGES[code] then return MESSAGES[code] end
  if words == "" then words = SILENT[code] or "" end
  if words == "" then return code ~= "" and code or ("HTTP status %d"):format(status) end
  return code ~= "" and ("%s (%s)"):format(words, code) or words
end

-- How far the server's clock is ahead, when it says that ours is the reason. An answer to HEAD gives no
-- reason: 15 minutes are what the store allows.
local function skew_of(response, root, code, context)
  if code ~= "AuthenticationFailed" or not context.dated then return nil end
  local detail = root and root:value("AuthenticationErrorDetail") or ""
  local theirs = time.parse_http(response.headers["date"])
  local skew = theirs and theirs - context.now
  local said = detail:lower():find("date header", 1, true)
  return skew and (said or not root and math.abs(skew) > 900) and skew or nil
end

---@class lunark.azure.Context
---@field op string
---@field container string
---@field key string?
---@field host string
---@field source string where the credentials are from
---@field now number
---@field ended boolean? true when the end of the signature has passed
---@field dated boolean? true when what was signed holds for a time only

--- The error that a response stands for.
---@param response table of lunark.http
---@param context lunark.azure.Context
---@return table err with `retry_after` and `skew` where the response has them
function errors.classify(response, context)
  local root, status = body_of(response), response.status
  local code = response.headers["x-ms-error-code"] or (root and root:value("Code")) or ""
  if code == "" and status == 404 then code = context.key and "BlobNotFound" or "ContainerNotFound" end
  local kind, retryable, hint = of_status(status)
  if CODES[code] then kind, retryable, hint = table.unpack(CODES[code], 1, 3) end
  local skew = skew_of(response, root, code, context)
  if skew then hint = CLOCK end
  if kind == "auth" and not skew then
    hint = context.ended and ENDED or hint or "the store refuses these credentials"
    hint = ("%s; the credentials are from %s"):format(hint, context.source)
  end
  local subject = context.key
  if not subject or code == "ContainerNotFound" then
    subject = ("container %s at %s"):format(context.container, context.host)
  end
  local after = response.headers["retry-after"]
  local err = sys.error {
    kind = kind, op = context.op, status = status, retryable = retryable, hint = hint,
    code = code ~= "" and code or nil, request_id = response.request_id,
    message = ("%s: %s"):format(subject, words_of(root, code, status)),
  }
  err.retry_after = after and (tonumber(after) or (time.parse_http(after) or context.now) - context.now)
  local known = CODES[code] or {}
  err.skew, err.locked, err.archived = skew, known.locked, known.archived
  return err
end

return errors
