-- The library `coroutine` as handlers see it, and how coroutines are watched over: see sandbox.lua, which loads this when it
-- is first used.
local std, core = ...
local type, pcall, tostring, match, tointeger = std.type, std.pcall, std.tostring, std.string.match, std.math.tointeger
local coroutine, sethook, follow, look = core.coroutine, core.sethook, core.follow, core.look
local create, resume, close, running = coroutine.create, coroutine.resume, coroutine.close, coroutine.running
local caught, rethrown, MODE, COUNT = core.caught, core.rethrown, core.MODE, core.COUNT

local FIRST_DUE <const> = 4 -- looks at coroutines, until one of them is met: see there
local MAX_HELD <const> = 32 -- coroutines

-- A count hook makes loops more than twice as slow. So in mode "async" a coroutine that goes on for long is followed:
-- Python takes its count hook off, and sets its hook together with that of the main thread. It may do so only as long
-- as the coroutine is held here. When there are too many, or the call ends, Python gives all of them their count hooks
-- back.
local met, held, following = {}, 0, false -- coroutine -> whether it is followed; how many, and whether any is
local looks, due = 0, FIRST_DUE

local function let_go()
  local none = {} -- made first: it may fail
  if following then follow(nil) end
  met, held, following = none, 0, false
end

-- Follow the coroutine that runs if it was met here before; give true when the call is over.
local function meet()
  local co = running()
  looks, due = 0, due + 1 -- for those that are soon done it is in vain
  if met[co] == nil then
    if held == MAX_HELD then let_go() end
    met[co], held = false, held + 1
  elseif not met[co] then
    local address = tointeger(match(tostring(co), '0x%x+'))
    following = true
    local is_over = follow(address)
    met[co] = true
    return is_over
  end
end

local on_count = look -- the hook of coroutines

local function look_soon()
  sethook(on_count, '', COUNT)
  on_count()
end

if MODE == 'async' then
  function on_count()
    look()
    looks = looks + 1
    if looks >= due then
      local ok, is_over = pcall(meet)
      if ok and is_over then core.die() end -- else, without memory to follow it, it keeps its hook
    end
  end
end

local function watched(co)
  if MODE ~= 'off' then sethook(co, on_count, '', COUNT) end
  return co
end

local safe_coroutine = {}

function safe_coroutine.create(f) return watched(create(f)) end

function safe_coroutine.wrap(f)
  local co = watched(create(f))
  return function(...) return rethrown(resume(co, ...)) end
end

function safe_coroutine.resume(co, ...) return caught(resume(co, ...)) end

function safe_coroutine.close(co)
  core.end_if_over() -- a coroutine that its hook has ended would run its __close without one
  if core.has_crashed() and type(co) == 'thread' and coroutine.status(co) == 'dead' then
    return false, 'a coroutine has run out of stack or memory: what is dead is not closed any more'
  end
  return caught(close(co))
end

for _, name in std.next, { 'isyieldable', 'running', 'status', 'yield' } do safe_coroutine[name] = coroutine[name] end

if MODE == 'async' then
  core.set_leave(function()
    looks, due = 0, FIRST_DUE
    if held > 0 then let_go() end
  end)
  core.at_each_round(function()
    local co, is_main = running()
    if not (is_main or met[co]) then sethook(core.is_dead() and core.die or look_soon, '', 1) end
  end)
end

return safe_coroutine
