-- The search of the table: by a metric and a param, ordered by a metric.
local common = require("common")
local body = string.format(
  [[{"experiment_ids":["%s"],"max_results":100,"filter":"metrics.metric_1 > 0.5 and params.param_1 = 'value-1'","order_by":["metrics.metric_0 DESC"]}]],
  os.getenv("BENCH_EXPERIMENT"))

function request() return common.post("/runs/search", body) end
