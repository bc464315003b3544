-- A run with two tags a request.
local common = require("common")

function request()
  return common.post("/runs/create", string.format(
    '{"experiment_id":"%s","start_time":%d,"tags":[{"key":"mlflow.user","value":"bench"},{"key":"mlflow.source.name","value":"train.py"}]}',
    os.getenv("BENCH_EXPERIMENT"), common.base + common.next()))
end
