-- What another script sends (BENCH_SENDS), paced (BENCH_PAUSE_MS between two requests of a connection, a half more or
-- less), by clients that wait as long as a 429 tells them to.
require(os.getenv("BENCH_SENDS"))

local pause = tonumber(os.getenv("BENCH_PAUSE_MS"))
local threads = {}
local owed = {}
ok, refused, failed = 0, 0, 0

function setup(thread) threads[#threads + 1] = thread end

function response(status, headers)
  if status == 200 then
    ok = ok + 1
  elseif status == 429 and headers["retry-after"] then
    refused = refused + 1
    owed[#owed + 1] = tonumber(headers["retry-after"]) * 1000
  else
    failed = failed + 1
  end
end

function delay()
  return math.floor(pause * (0.5 + math.random())) + (table.remove(owed) or 0)
end

function done(summary, latency)
  local told = { ok = 0, refused = 0, failed = 0 }
  for _, thread in ipairs(threads) do
    for name in pairs(told) do told[name] = told[name] + thread:get(name) end
  end
  local errors = summary.errors
  io.write(string.format("flood: ok=%d refused=%d failed=%d broken=%d p50=%.3f p99=%.3f max=%.3f\n", told.ok,
    told.refused, told.failed, errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, latency.max / 1000))
end
