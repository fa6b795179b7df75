-- Some 400 requests a second from four connections: the deploys want to get on, too. Every answer is looked at.
local threads = {}
wrong = 0

function setup(thread)
  threads[#threads + 1] = thread
end

function delay()
  return 10
end

function response(status, headers, body)
  if status ~= 200 or not string.find(body, "Bench app", 1, true) then
    wrong = wrong + 1
  end
end

function done()
  local sum = 0
  for _, thread in ipairs(threads) do
    sum = sum + thread:get("wrong")
  end
  io.write(string.format("Wrong answers: %d\n", sum))
end
