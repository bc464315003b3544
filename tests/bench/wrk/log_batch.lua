-- A thousand points a request: ten metrics, a hundred new steps each; eight runs in turn.
local common = require("common")
local ids = common.ids()
local parts = {}
for step = 0, 99 do
  for key = 0, 9 do
    parts[#parts + 1] = string.format('{"key":"metric-%d","value":%.9f,"timestamp":%%T,"step":%%S%02d}', key, (key + 1) / (step + 3), step)
  end
end
local template = table.concat(parts, ",")

function request()
  local n = common.next()
  local metrics = template:gsub("%%(%u)", { T = string.format("%d", common.base + n), S = string.format("%d", n) })
  return common.post("/runs/log-batch", '{"run_id":"' .. ids[n % #ids + 1] .. '","metrics":[' .. metrics .. "]}")
end
