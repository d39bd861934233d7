-- Sends the requests of a file one after another, over and over. Each line of it: a path, a tab, a JSON body.
-- Usage: wrk -s wrk.lua URL FILE
local requests, last = {}, 0

function init(args)
  wrk.headers["Content-Type"] = "application/json"
  for line in io.lines(args[1]) do
    local path, body = line:match("^([^\t]*)\t(.*)$")
    requests[#requests + 1] = wrk.format("POST", path, nil, body)
  end
end

function request()
  last = last % #requests + 1
  return requests[last]
end
