-- What every script shares: the ids of runs from a file, and a number that never repeats.
local common = {
  api = "/api/2.0/mlflow",
  headers = { ["Content-Type"] = "application/json" },
  base = os.time() * 1000,
  n = 0,
}

function common.ids()
  local ids = {}
  for line in io.lines(os.getenv("BENCH_RUNS")) do ids[#ids + 1] = line end
  return ids
end

function common.next()
  common.n = common.n + 1
  return common.n
end

function common.post(path, body)
  return wrk.format("POST", common.api .. path, common.headers, body)
end

return common
