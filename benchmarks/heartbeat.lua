-- For wrk: heartbeats of 1,000 instances in turn, 10 a model name, byte for byte as DB-GPT's
-- worker client sends them.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local body = '{"model_name":"model-%d@llm","host":"10.0.%d.%d","port":8001,"weight":1.0,'
  .. '"check_healthy":true,"healthy":false,"enabled":true,"prompt_template":null,'
  .. '"last_heartbeat":null,"remove_from_registry":false}'
local requests, turn = {}, 0

function init()
  for i = 0, 999 do
    local text = body:format(math.floor(i / 10), math.floor(i / 256), i % 256)
    requests[i + 1] = wrk.format(nil, nil, nil, text)
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end
