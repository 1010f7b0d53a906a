-- SPDX-License-Identifier: MIT
---@meta lunark.core.http
--- lunark.core.http: one HTTP request over libcurl. Scripts use lunark.http, which adds query and
--- signature.

local http = {}

--- Parks until the response (with sink = "stream": its header) is there. Needs net for the host,
--- and for a proxy and addresses that are named here.
---@param options table url, method, headers {name = string or secret}, body, length, sink, max,
---  connect_timeout, idle_timeout, timeout, ca_file, ca_path, insecure, proxy, http2,
---  expect_continue, resolve: see lunark.http.Options
---@return lunark.http.Response|nil
---@return table? err
function http.request(options) end

--- Splits a URL; path and query stay escaped as they are.
---@param text string
---@return table|nil url {scheme, host, port, default_port, path, query}
---@return table? err kind usage
function http.parse_url(text) end

return http
