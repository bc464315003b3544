-- A tag a request, by a content type that the hot way leaves to the ordinary one; sixteen runs in turn.
local common = require("common")
local ids = common.ids()
local headers = { ["Content-Type"] = "application/json; charset=utf-8" }

function request()
  local n = common.next()
  return wrk.format("POST", common.api .. "/runs/set-tag", headers,
    string.format('{"run_id":"%s","key":"tag-%d","value":"%d"}', ids[n % #ids + 1], n % 50, n))
end
