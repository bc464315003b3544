"""Filters and orders, and what the two servers make of them."""

ACTIVE_RUNS = 27

FILTERS = [
    "",
    # metrics: numbers, NaN, what is missing
    "metrics.acc > 0.2", "metrics.acc >= 0.2", "metrics.acc < 0.2", "metrics.acc <= 0.2", "metrics.acc = 0.2",
    "metrics.acc != 0.2", "metrics.acc = 0", "metrics.acc = -0.0", "metrics.acc != 0", "metrics.acc > -1",
    "metrics.acc < 0", "metrics.acc>=1e300", "metrics.acc > 1e400", "metrics.acc < 1e400", "metrics.acc != 1e400",
    "metrics.acc <= -1e308", "metrics.acc = 9007199254740992", "metrics.acc = 1E-300", "metrics.acc > .25",
    "metrics.acc > 5.", "metrics.acc = -5", "metrics.acc=-.5", "metrics.acc = 99999999999999999999999999",
    "metric.acc > 0.2", "metrics.unknown > 0", "metrics.unknown != 0", "metrics.ACC > 0",
    # keys and their quotes
    'metrics."loss step" > 1', "metrics.`loss step` > 1", "metrics.'loss step' > 1", "metrics.order < 7",
    "metrics.epoch.val = 1", "metrics.`epoch.val` = 2", "`metrics`.acc > 0.2", "`metrics`.`acc` > 0.2",
    "params.`my param/1` = 'x'", 'param."my param/1" = "x"', "parameters.lr = '3'", "parameter.lr = '4'",
    "tags.mlflow.note.content LIKE 'Note 1%'", "tags.`mlflow.note.content` = 'Note 3'", "params.1a = 'x'",
    # params and tags: text, its case, patterns
    "params.opt = 'adam'", 'params.opt = "adam"', "params.opt = 'ADAM'", "params.opt != 'adam'",
    "params.opt LIKE 'a%'", "params.opt LIKE 'A%'", "params.opt ILIKE 'a%'", "params.opt ilike 'ADAM'",
    "params.opt LIKE 'a_m'", "params.opt LIKE 'a%m'", "params.opt LIKE 'a\\_m'", "params.opt LIKE 'a\\%'",
    "params.opt LIKE 'a\\m'", "params.opt LIKE 'a\\'", "params.opt LIKE '%'", "params.opt LIKE ''",
    "params.opt LIKE '_'", "params.opt LIKE 'sgd'", "params.opt LIKE 'sgd '", "params.opt LiKe 'sg_%'",
    "params.opt = ''", 'params.opt = ""', "params.opt = \"it's\"", "params.opt = 'say \"hi\"'",
    "params.opt = 'it''s'", "params.opt = 'a\\m'", "params.opt = 'é'", "params.opt ILIKE 'é'", "params.opt = '日本'",
    "params.opt LIKE '日_'", "params.opt = 'ADAM '", "params.unknown = 'x'", "params.unknown != 'x'",
    "params.lr = '10'", "params.lr LIKE '1%'", "params.lr != '10'",
    "tags.team = 'red'", "tag.team = 'Blue'", "tags.team != 'blue'", "tags.team ILIKE 'BLUE'", "tags.team = '%'",
    "tags.team LIKE '\\%'", "tags.team LIKE '_'", "tags.n = '07'",
    # what is there and what is not, deleted tags among it
    "tags.team IS NULL", "tags.team IS NOT NULL", "tags.gone IS NULL", "tags.gone IS NOT NULL", "tags.gone = 'soon'",
    "tags.gone != 'x'", "tags.gone LIKE '%'", "params.`my param/1` IS NULL", "params.opt is not null",
    "params.opt IS NULL", "tags.unknown is null", "tags.team IS  NULL",
    # attributes and their other names
    "status = 'FINISHED'", "attributes.status = 'FAILED'", "attribute.status != 'FINISHED'", "attr.status LIKE 'F%'",
    "run.status ILIKE 'finished'", "status = 'finished'", "status = 'NONSENSE'", "attributes.`status` = 'KILLED'",
    "start_time > 1030", "attributes.start_time >= 1030", "created < 1030", "Created <= 1030.5", "start_time = 1030",
    "start_time != 1030", "start_time > 1029.5", "start_time = 1e3", "start_time < 1e400", "start_time > -1",
    "end_time > 0", "end_time != 4995", "attributes.end_time <= 4990", "end_time = 5000",
    "user_id = 'user0'", "user_id LIKE 'user%'", "user_id != 'user2'", "artifact_uri LIKE 'mlflow-artifacts:/%'",
    "artifact_uri = 'x'", "artifact_uri ILIKE '%/ARTIFACTS'",
    "run_name = 'Run 1'", "attributes.run_name LIKE 'run%'", "run_name ILIKE 'run_1'", "`run name` = 'run_2'",
    "attributes.`Run name` != 'Run 1'", 'attributes."Run Name" LIKE "Run %"', '"run name" = "Run 3"',
    "attributes.\"run name\" LIKE 'Run _'", "run_name != 'Run 1'",
    # datasets
    "dataset.name = 'Iris'", "datasets.name LIKE 'iris%'", "dataset.name ILIKE 'iris%'", "dataset.name != 'Iris'",
    "dataset.name IN ('Iris', 'wine')", "dataset.name NOT IN ('Iris')", "dataset.digest = 'd5'",
    "datasets.digest IN ('d0', \"d5\",)", "dataset.context = 'train'", "dataset.context != 'train'",
    "dataset.context in ('train', 'eval')", "dataset.context NOT IN ('train')", "dataset.context LIKE '%a%'",
    "dataset.name = 'wine' AND dataset.context = 'train'", "dataset.name = 'Iris' AND dataset.name = 'iris_test'",
    "dataset.name = 'Iris' AND dataset.context = 'eval'", "dataset.name IN ('Iris') AND metrics.acc > 0",
    # AND, and how MLflow lets it be written
    "metrics.acc > 0 AND params.opt = 'adam'", "metrics.acc > 0 and params.lr LIKE '1%' aNd status = 'RUNNING'",
    "metrics.acc > 0 AND metrics.acc < 0.3 AND metrics.order > 2", "metrics.acc>0\tAND\nmetrics.order<20",
    "metrics.acc > 0 AND", "AND metrics.acc > 0", "metrics.acc > 0 AND AND metrics.order < 9", "AND",
    "metrics.acc > 0 metrics.order < 9", "params.opt='adam'AND tags.n='00'", "params.opt LIKE'a%'",
    "tags.team IS NULL AND params.opt LIKE '%' AND tags.gone IS NOT NULL AND metrics.acc != 0",
]  # fmt: skip

BAD_FILTERS = [
    " ", "metrics.acc", "metrics.acc >", "> 1", "1 > metrics.acc", "metrics.acc > 'x'", "metrics.acc > inf",
    "metrics.acc = NaN", "metrics.acc > +1", "metrics.acc > - 1", "metrics.acc > 0x10", "metrics.acc > 1_000",
    "metrics.acc > 1.2.3", "metrics.acc > 1and metrics.acc < 2", "metrics.acc > metrics.order",
    "metrics.acc == 1", "metrics.acc <> 1", "metrics.acc => 1", "metrics.acc ~ 1", "metrics.acc ! = 1",
    "metrics.acc LIKE '1%'", "metrics.acc IN (1, 2)", "metrics.acc IS NULL", "metrics.acc BETWEEN 1 AND 2",
    "metrics.acc > 1 > 0", "metrics.acc/x > 1", "metrics.acc-x > 1", "metrics.acc:x > 1", "metrics.loss step > 1",
    "METRICS.acc > 1", '"metrics".acc > 1', "`metrics.acc` > 1", "foo.acc > 1", ".acc > 1", "metrics .acc > 1",
    "params.opt = adam", "params.opt = `adam`", "params.opt = 1", "params.opt = params.lr", "params.opt = NULL",
    "params.opt > 'a'", "params.opt == 'a'", "params.opt NOT LIKE 'a'", "params.opt RLIKE 'a'",
    "params.opt REGEXP 'a'", "params.opt IN ('a')", "params.opt IS 'a'", "params.opt IS", "params.opt = 'x' 'y'",
    "tags.team IN ('red')", "tags.team < 'red'", "tags.team LIKE 1", "tags.team = 1.5",
    "params.opt = 'a' OR params.opt = 'b'", "params.opt = 'a' && params.lr = 'b'", "NOT params.opt = 'a'",
    "(params.opt = 'a')", "params.opt = 'a' AND (params.lr = '1')", "params.opt = 'a', params.lr = '1'",
    "params.opt = 'a';", "params.opt = 'a'; params.lr = '1'", ";", "params.opt = 'a' -- comment",
    "params.opt = 'a' /* comment */", "params.opt = 'a' # comment",
    "params.opt = 'a", 'params.opt = "a', "params.`opt = 'a'", "params.opt` = 'a'", "params.opt = a'",
    "params.opt = 'C:\\' AND params.lr = 'x'",
    "unknown = 'x'", "name = 'x'", "Status = 'x'", "run_uuid = 'x'", "experiment_id = '1'",
    "lifecycle_stage = 'active'", "attributes.unknown = 'x'", "run name = 'x'", "'run name' = 'x'",
    "status = FINISHED", "status > 'A'", "status IN ('FINISHED')", "status IS NULL", "run_name IN ('a')",
    "start_time > '1'", "start_time LIKE '1'", "start_time IN (1)", "start_time IS NOT NULL",
    "dataset.name > 'a'", "dataset.name = Iris", "dataset.source = 'x'", "dataset.name IS NULL",
    "run_id IN ()", "run_id IN (1)", "run_id IN 'a'", "run_id IN [1]", "run_id IN ('a'", "run_id > 'a'",
]  # fmt: skip

ORDERS = [
    ["metrics.acc"], ["metrics.acc ASC"], ["metrics.acc DESC"], ["metric.`acc` dEsC"], ["metrics.`loss step` DESC"],
    ['metrics."loss step"'], ["metrics.'loss step' asc"], ["metrics.unknown"], ["metrics.unknown DESC"],
    ["metrics.order DESC"], ["metrics.epoch.val", "metrics.order DESC"], ["metrics.epoch.val DESC", "start_time"],
    ["metrics.acc DESC", "metrics.`loss step` ASC", "params.opt"], ["`metrics`.acc  DESC"], ["metrics.acc\tDESC"],
    ["params.opt"], ["params.opt DESC"], ["param.lr"], ["parameters.lr DESC"], ["params.`my param/1`"],
    ["tags.team"], ["tags.team DESC"], ["tag.gone"], ["tags.gone DESC"], ["tags.mlflow.note.content DESC"],
    ["tags.`mlflow.note.content`"], ["tags.n DESC"],
    ["start_time"], ["start_time DESC"], ["attributes.start_time ASC"], ["created"], ["Created DESC"], ["end_time"],
    ["end_time DESC"], ["status", "end_time DESC"], ["attribute.status DESC"], ["user_id"], ["attr.user_id DESC"],
    ["run_name"], ["run.run_name DESC"], ["status", "user_id DESC", "run_name", "metrics.acc"],
]  # fmt: skip

BAD_ORDERS = [
    [""], ["  "], [" metrics.acc"], ["metrics.acc "], ["metrics.acc DESC "], ["metrics.acc foo"],
    ["metrics.acc DESC foo"], ["metrics.acc DESC NULLS LAST"], ["metrics.acc, metrics.order"], ["desc"], ["acc"],
    ["foo.acc"], ["dataset.name"], ["dataset.foo"], ["metrics.acc-x"], ["metrics.acc/x DESC"], ["metrics.acc > 1"],
    ["1"], ["metrics.acc;"], ["`run name`"], ["attributes.`Run Name`"], ["name"], ["Start_time"], ["params.opt'"],
    ["metrics.acc", "nonsense"],
]  # fmt: skip
