-- One point of one metric a request, sixteen runs in turn.
local common = require("common")
local ids = common.ids()

function request()
  local n = common.next()
  return common.post("/runs/log-metric", string.format(
    '{"run_id":"%s","key":"loss","value":%.9f,"timestamp":%d,"step":%d}', ids[n % #ids + 1], 1 / n, common.base + n, n))
end
