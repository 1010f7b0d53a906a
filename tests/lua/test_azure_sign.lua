-- SPDX-License-Identifier: MIT
-- providers/sign/azure.lua against the examples of "Authorize with Shared Key" in Microsoft's reference, and
-- signatures that Microsoft's client for Python 12.31.1 makes with the emulator's well-known key.
-- luacheck: no max line length
local lu = require "luaunit"
local azure = require "providers.sign.azure"
local sys = require "lunark.core.sys"

local TestAzureSign = {}

local KEY = sys.secret "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
local DATE = "Fri, 26 Jun 2015 23:39:12 GMT"

local function request(method, path, query, headers, size, version)
  local all = { ["x-ms-date"] = DATE, ["x-ms-version"] = version or "2021-12-02" }
  for name, value in pairs(headers or {}) do all[name] = value end
  return { method = method, path = path, query = query or "", headers = all, body_size = size }
end

function TestAzureSign.test_examples_of_the_reference()
  lu.assertEquals(azure.string_to_sign(request("GET", "/mycontainer", "restype=container&comp=metadata&timeout=20", {}, nil, "2015-02-21"), "myaccount"),
    "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n/myaccount/mycontainer\ncomp:metadata\nrestype:container\ntimeout:20")
  -- A name that stands there several times, and names in capitals.
  lu.assertStrContains(azure.string_to_sign(request("GET", "/mycontainer",
    "Restype=container&comp=list&include=snapshots&include=metadata&include=uncommittedblobs"), "myaccount"),
    "/myaccount/mycontainer\ncomp:list\ninclude:metadata,snapshots,uncommittedblobs\nrestype:container")
end

function TestAzureSign.test_account_in_the_path()
  local one = request("GET", "/devstoreaccount1/c/a%20b%2Bc/%C3%BC.gz", "", { ["x-ms-range"] = "bytes=0-9" })
  lu.assertEquals(azure.shared_key(one, "devstoreaccount1", KEY),
    "SharedKey devstoreaccount1:0hWbYCBNozL/3qoAdMxFm0hS5DEM+Im6D3mFbxdAB5o=")
end

function TestAzureSign.test_body_and_md5()
  local one = request("PUT", "/c/k", "comp=block&blockid=bHVuYXJrLWFiYy8r%2BzAw",
    { ["content-md5"] = "XrY7u+Ae7tCTyyK7j1rNww==" }, 11)
  lu.assertEquals(azure.shared_key(one, "myaccount", KEY), "SharedKey myaccount:ZrZ6Y5CEvzM9OStpgFtUs8dEhhnjy/ZIltzYNckE2TU=")
end

function TestAzureSign.test_query_is_sorted_and_decoded()
  local one = request("GET", "/c", "restype=container&comp=list&prefix=a%2Fb%20c&maxresults=1000")
  lu.assertEquals(azure.shared_key(one, "myaccount", KEY), "SharedKey myaccount:Ob1wHyxj9zP1d5W+jEiFKu84mqSPr7FOltQzmdlMiL8=")
end

-- The order of names is that of a culture, not of bytes: a_b, a1, ab.
function TestAzureSign.test_order_of_headers()
  local one = request("PUT", "/c/k", "", {
    ["x-ms-blob-type"] = "BlockBlob", ["if-none-match"] = "*", ["x-ms-meta-a_b"] = "1", ["x-ms-meta-a1"] = "2",
    ["x-ms-meta-ab"] = "3", ["x-ms-meta-lunark_version"] = "0.1.0", ["x-ms-meta-lunark"] = " x ",
    ["x-ms-access-tier"] = "Cool",
  }, 0)
  lu.assertEquals(azure.string_to_sign(one, "myaccount"), "PUT\n\n\n\n\n\n\n\n\n*\n\n\nx-ms-access-tier:Cool\n"
    .. "x-ms-blob-type:BlockBlob\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-meta-a_b:1\nx-ms-meta-a1:2\n"
    .. "x-ms-meta-ab:3\nx-ms-meta-lunark:x\nx-ms-meta-lunark_version:0.1.0\nx-ms-version:2021-12-02\n/myaccount/c/k")
end

function TestAzureSign.test_values_that_are_secret()
  local one = request("PUT", "/c/k", "", { ["x-ms-copy-source"] = sys.secret "https://x/y?sig=z" })
  lu.assertStrContains(azure.string_to_sign(one, "a"), "x-ms-copy-source:https://x/y?sig=z\n")
end

function TestAzureSign.test_key_that_is_none()
  local authorization, err = azure.shared_key(request("GET", "/c"), "a", sys.secret "not base64!")
  lu.assertNil(authorization)
  lu.assertEquals(err.kind, "corrupt")
end

function TestAzureSign.test_sas()
  local sas = "sv=2021-12-02&ss=b&se=2030-01-01T00%3A00%3A00Z&sp=rl&sig=a%2Bb%3D"
  for _, text in ipairs { sas, "?" .. sas, " " .. sas .. "\n", "https://a.blob.core.windows.net/c?" .. sas } do
    local query, ends = azure.sas(text)
    lu.assertEquals(query, sas)
    lu.assertEquals(ends, "2030-01-01T00:00:00Z")
  end
  for _, text in ipairs { "", "word", "sv=1", "sig=x", "sv=1&sig=" } do lu.assertNil((azure.sas(text))) end
  lu.assertEquals(azure.with_sas("https://a/b", sys.secret(sas)), "https://a/b?" .. sas)
  lu.assertEquals(azure.with_sas("https://a/b?comp=list", sas), "https://a/b?comp=list&" .. sas)
end

return { TestAzureSign = TestAzureSign }
