-- SPDX-License-Identifier: MIT
-- lunark.time: expected values from `date -u -d @N`.
local lu = require "luaunit"
local time = require "lunark.time"

local TestTime = {}

local KNOWN = {
  { 0, "1970-01-01T00:00:00Z", "Thu, 01 Jan 1970 00:00:00 GMT" },
  { 951782399, "2000-02-28T23:59:59Z", "Mon, 28 Feb 2000 23:59:59 GMT" },
  { 951868800, "2000-03-01T00:00:00Z", "Wed, 01 Mar 2000 00:00:00 GMT" },
  { 1592310777, "2020-06-16T12:32:57Z", "Tue, 16 Jun 2020 12:32:57 GMT" },
  { 1709164800, "2024-02-29T00:00:00Z", "Thu, 29 Feb 2024 00:00:00 GMT" },
  { 2147483648, "2038-01-19T03:14:08Z", "Tue, 19 Jan 2038 03:14:08 GMT" },
  { 4107542400, "2100-03-01T00:00:00Z", "Mon, 01 Mar 2100 00:00:00 GMT" },
  { -1, "1969-12-31T23:59:59Z", "Wed, 31 Dec 1969 23:59:59 GMT" },
}

function TestTime.test_known_times()
  for _, known in ipairs(KNOWN) do
    lu.assertEquals(time.rfc3339(known[1]), known[2])
    lu.assertEquals(time.http(known[1]), known[3])
    lu.assertEquals(time.parse(known[2]), known[1])
    lu.assertEquals(time.parse_http(known[3]), known[1])
    lu.assertEquals(time.basic(known[1]), (known[2]:gsub("[-:]", "")))
    lu.assertEquals(time.parse(time.basic(known[1])), known[1])
  end
end

function TestTime.test_every_day_of_four_centuries()
  local day = time.of { year = 1900, month = 1, day = 1 } // 86400
  for offset = 0, 146097 do
    local fields = time.fields((day + offset) * 86400 + 12)
    lu.assertEquals(time.of(fields), (day + offset) * 86400 + 12)
  end
end

function TestTime.test_zones_and_relatives()
  local noon = 1772366400 -- 2026-03-01T12:00:00Z
  for _, text in ipairs {
    "2026-03-01T12:00:00Z", "2026-03-01T12:00:00", "2026-03-01 12:00", "2026-03-01T14:00:00+02:00",
    "2026-03-01T06:30:00-0530", "20260301T120000Z", "2026-03-01t12:00:00z", "2026-03-01T120000Z",
  } do
    lu.assertEquals(time.parse(text), noon, text)
  end
  lu.assertEquals(time.parse "2026-03-01", noon - 12 * 3600)
  lu.assertEquals(time.parse "2026-03-01T12:00:00.5Z", noon + 0.5)
end

function TestTime.test_fractions()
  lu.assertEquals(time.rfc3339(1.75, 2), "1970-01-01T00:00:01.75Z")
  lu.assertEquals(time.rfc3339(1.9999, 3), "1970-01-01T00:00:01.999Z")
end

function TestTime.test_what_is_no_time()
  for _, text in ipairs {
    "", "now", "2026-13-01", "2026-02-29", "2026-00-10", "2026-01-01T24:00:00Z", "2026-01-01T12:60:00Z",
    "2026-01-01T12:00:00+25:00", "2026-01-01x", "26-01-01", "2026-01-01T12",
  } do
    local seconds, err = time.parse(text)
    lu.assertNil(seconds, text)
    lu.assertEquals(err.kind, "usage")
    lu.assertEquals(err.message, ("'%s' is not a time"):format(text))
  end
  lu.assertNil(time.parse_http "yesterday")
  lu.assertNil(time.parse_http(nil))
end

return { TestTime = TestTime }
