-- A file of 10 KiB a request, sixteen runs in turn.
local common = require("common")
local ids = common.ids()
local body = string.rep("0123456789abcde\n", 640)

function request()
  local n = common.next()
  local path = string.format("/api/2.0/mlflow-artifacts/artifacts/%s/%s/artifacts/file-%d-%d.txt",
    os.getenv("BENCH_EXPERIMENT"), ids[n % #ids + 1], common.base, n)
  return wrk.format("PUT", path, { ["Content-Type"] = "text/plain" }, body)
end
