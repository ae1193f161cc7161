-- Runs once in each runtime while all of Lua is still in sight, closes it, and returns the few closures that Python
-- keeps. Everything that a handler can reach is made here. Only scalars ever cross to Python and back.
local check, fetch, bind, again, flush, follow, MODE, COUNT = ...

local G, debug, python = _G, debug, python
local type, error, pcall, xpcall, select, next, pairs = type, error, pcall, xpcall, select, next, pairs
local rawequal, rawget, tostring, load, setmetatable = rawequal, rawget, tostring, load, setmetatable
local metatable_of, sethook, gethook, traceback, getinfo =
  debug.getmetatable, debug.sethook, debug.gethook, debug.traceback, debug.getinfo
local as_function, find, gmatch, match = python.as_function, string.find, string.gmatch, string.match
local clock, collect = os.clock, collectgarbage
local coroutine, main = coroutine, coroutine.running()
local byte, sub, concat, unpack = string.byte, string.sub, table.concat, table.unpack

-- A thousand runtimes share the memory, so garbage may not wait until the heap has doubled: see `tidy`.
local GROWTH <const> = 1.25 -- times what is in use after a round of the collector
local PAUSE <const> = 150 -- percent of it from which on Lua itself collects, while a handler runs
local CLOCK_GATE <const> = 0.01 -- CPU seconds between two questions to Python: each one takes the interpreter lock
local MAX_OUTBOX <const>, MAX_OUTBOX_SIZE <const> = 64, 65536 -- messages, bytes
local MAX_MESSAGE <const> = 16384 -- bytes of an error's message that leave Lua: it goes into logs, events and headers
local OUT_OF_MEMORY <const> = 'not enough memory'

-- 1. The end of a handler: an error that nothing can catch.

local DEAD = setmetatable({}, { __metatable = false, __tostring = function() return 'killed' end })
local dead = false

-- Which message of a batch is in hand, 0 between the calls; and whether it is the last one that this crossing handles:
-- it may take its time, so Python has given those behind it away.
local place, parted = 0, false

-- What has been published to a queue that takes it at once, and Python does not have yet: each call of Python takes the
-- interpreter lock, and two threads that want it at the same moment pay more for it than for a quick handler. It goes
-- before Python is called for anything else, and with the result when the crossing has ended; when it has ended in
-- another way Python takes it. Only Python empties it, for a kill may come between any two steps of ours; the keys are
-- numbers, so that Lua needs no memory for that.
local QUEUE <const>, ENCODING <const>, PLACE <const> = -1, -2, -3 -- of all of them; the message that the first is from
local ENDED <const> = -4 -- the message in which the runtime has died: no Lua can tell that any more
local LAST <const> = -5 -- the message that was begun last: Python looks there, for no Lua runs any more after a kill
local outbox = { [0] = 0, [ENDED] = 0, [LAST] = 0 } -- [0]: how many bodies there are, at [1] and behind
local outbox_size = 0

local function die()
  if not dead then outbox[ENDED] = place end
  dead = true
  sethook(die, '', 1) -- what runs while the stack unwinds, a __close for one, ends at its first instruction
  error(DEAD, 0)
end

local function unsent() return outbox[QUEUE], outbox[ENCODING], outbox[PLACE], unpack(outbox, 1, outbox[0]) end

flush = as_function(flush) -- false: the call is over

local function send()
  if not flush(unsent()) then die() end
end

check = as_function(check) -- whether the call is over; Python takes the chance to part a batch that has become slow

local function ask()
  if outbox[0] > 0 then send() end -- Python is going to ack the messages before this one
  parted = true
  if check(place) then die() end
end

local on_count -- the hook of the main thread, in mode "async"
local look -- whether the call is over; out of turn, after a call of C that has taken its time
if MODE == 'async' then
  -- Python arms the hook of the main thread: for each instruction to kill, for the next line to part a batch.
  function on_count(event)
    if event == 'line' then ask() else die() end
  end
  function look()
    local armed, mask = gethook(main)
    if dead or (armed and mask ~= 'l') then die() end
    if armed then ask() end
  end
elseif MODE == 'count' then
  local asked = 0
  function look()
    if dead then die() end
    local now = clock()
    if now - asked >= CLOCK_GATE or now < asked then
      asked = now
      ask()
    end
  end
else
  function look() end
end

-- One instruction may take milliseconds, such as one that joins strings of many megabytes, and a thousand of them
-- seconds. But they make garbage: so after each round of the collector `act` is called, to have the thread that runs looked
-- at out of turn.
local function at_each_round(act)
  local mt = {}
  function mt.__gc(sentinel)
    act()
    setmetatable(sentinel, mt) -- for the next round
  end
  setmetatable({}, mt)
end

if MODE == 'count' then
  sethook(look, '', COUNT)
  local function look_soon()
    sethook(look, '', COUNT)
    look()
  end
  at_each_round(function() sethook(dead and die or look_soon, '', 1) end)
elseif MODE == 'async' then
  sethook(on_count, '', 1000000000)
end

local leave_coroutines -- see coroutines.lua; nil until the handler has made one

-- The hook itself fails in a loop at the limit of the C stack, so nothing may catch an overflow and go on there, nor put
-- another error in its place. `doomed` is the overflow that ends the call.
local doomed

-- Only what Lua itself says: a handler may have the words from a message, and put them into an error of its own.
local function overflows(e)
  if type(e) ~= 'string' then return false end
  if e ~= 'error in error handling' then
    if not find(e, 'stack overflow', 1, true) then return false end
    local text = match(e, '^.-:%-?%d+: (.*)$') or e
    if not (find(text, '^C? ?stack overflow$') or find(text, '^stack overflow %(')) then return false end
  end
  doomed = doomed or e
  return true
end

local function end_if_over()
  if dead then error(DEAD, 0) end
  if doomed then error(doomed, 0) end
end

-- A coroutine that dies inside its hook, for lack of stack or memory, has no hooks any more: nothing could end what
-- closing it would run.
local crashed = false

local function note(e)
  if overflows(e) or e == OUT_OF_MEMORY or type(e) == 'userdata' then crashed = true end
end

-- Errors that are objects of Python, such as an interrupt that came between two lines of the guard, stay here.
local function without_python(e, ...)
  if type(e) == 'userdata' then return 'internal error' end
  return e, ...
end

local function caught(ok, ...)
  if not ok then note((...)) end
  end_if_over()
  if ok then return true, ... end
  return false, without_python(...)
end

local function rethrown(ok, ...)
  if not ok then note((...)) end
  end_if_over()
  if ok then return ... end
  error(without_python((...)), 0)
end

-- 2. Values that handlers cannot look into.

local opaque = {} -- metatable of values whose type is "userdata" -> its name
local sealed = {} -- metatable of a read-only proxy -> the table behind it, or what makes it

local function type_of(v)
  local t = type(v)
  if t == 'table' then
    local mt = metatable_of(v)
    if mt and opaque[mt] then return 'userdata' end
  end
  return t
end

local function name_of(v) return metatable_of(v).__name end

local function refuse_field(v, key)
  error('cannot set ' .. tostring(key) .. ' of ' .. name_of(v) .. ': it is read-only', 2)
end

local function refuse_length(v) error('attempt to get length of a ' .. name_of(v) .. ' value', 2) end

local function new_type(name, methods, metamethods)
  local mt = {
    __index = methods, __name = name, __metatable = false,
    __tostring = name_of, __newindex = refuse_field, __len = refuse_length,
  }
  for key, f in pairs(metamethods or {}) do mt[key] = f end
  opaque[mt] = name
  return mt
end

-- Compared raw, as are all tables of ours with those of a handler: == asks its `__eq`, which could say yes, and would
-- get hold of ours.
local function is(v, mt)
  return type(v) == 'table' and rawequal(metatable_of(v), mt)
end

local function refuse_change(proxy, key)
  error(name_of(proxy) .. ' is read-only: cannot set ' .. tostring(key), 2)
end

-- A thousand runtimes share the memory, so what many functions never use is loaded when it is first used.

local function behind(mt)
  local t = sealed[mt]
  if type(t) == 'function' then
    t = t()
    mt.__index, sealed[mt] = t, t -- these need no memory, so it is all or nothing
  end
  return t
end

local function length_behind(proxy) return #behind(metatable_of(proxy)) end

-- t: a table, or a function that makes it when something is first looked for there.
local function seal(t, what)
  local mt = { __index = t, __name = what, __metatable = false, __newindex = refuse_change, __len = length_behind }
  if type(t) == 'function' then
    function mt.__index(_, key) return behind(mt)[key] end
  end
  sealed[mt] = t
  return setmetatable({}, mt)
end

local pending = {} -- table -> what completes it

local function complete(t)
  pending[t](t)
  setmetatable(t, nil) -- nor does this, nor the next one
  pending[t] = nil
end

local PENDING <const> = { __index = function(t, key)
  complete(t)
  return t[key]
end }

-- Have a table completed by `f` when something is looked for that it lacks.
local function later(t, f)
  pending[t] = f
  return setmetatable(t, PENDING)
end

-- The table that a raw operation of a handler is to work on.
local function bare(t, operation)
  if type(t) ~= 'table' then
    error("bad argument #1 to '" .. operation .. "' (table expected, got " .. (t == nil and 'no value' or type(t)) .. ')', 3)
  end
  local mt = metatable_of(t)
  if mt then
    if opaque[mt] then error("bad argument #1 to '" .. operation .. "' (table expected, got userdata)", 3) end
    if sealed[mt] then
      t = behind(mt)
      if pending[t] then complete(t) end
    end
  end
  return t
end

-- 3. Python functions as closures.

local SCALAR = { string = true, number = true, boolean = true, ['nil'] = true }

local function scalars(...)
  for i = 1, select('#', ...) do
    local v = select(i, ...)
    if not SCALAR[type(v)] then error('argument ' .. i .. ': ' .. type_of(v) .. ' not allowed', 4) end
  end
  return ...
end

local lib = {}

-- The guard in Python gives true and the results, or 1 and the results when it has parted the batch; false and an error;
-- false alone when there is no room for the results; or nil when the call is over.
local function failed(message, kind, retryable, details)
  if message == nil then error(OUT_OF_MEMORY, 0) end
  return nil, lib.errors.new(message, kind, retryable, details and lib.json.decode(details))
end

local function results(ok, ...) -- as many as there are: `table.insert(ids, uuid.v4())` counts them
  if ok then return ... end
  if ok == nil then die() end
  return failed(...)
end

again = as_function(again)

local function settled(ok, a, ...)
  if ok ~= true then parted = true end
  if ok == false and a == nil then
    collect() -- not in Python, which would hold the interpreter lock for as long as it takes
    return results(again())
  end
  return results(ok, a, ...)
end

bind = as_function(bind)

-- What `get` gives, which has no room at first where there is garbage.
local function got(get, ...)
  return get(...) or collect() and get(...) or error(OUT_OF_MEMORY, 0)
end

-- A function of the Python part of a module: it gives its results, or nil and an errors value.
local function host_function(module, name)
  local f = as_function(got(bind, module, name))
  return function(...)
    if outbox[0] > 0 then send() end
    return settled(f(place, scalars(...)))
  end
end

-- 4. What trusted chunks see.

local std = {}
for _, name in pairs { 'assert', 'error', 'ipairs', 'next', 'pairs', 'pcall', 'rawequal', 'rawget', 'rawlen', 'rawset', 'select',
  'setmetatable', 'tonumber', 'tostring', 'type' } do
  std[name] = G[name]
end
std.getmetatable, std.traceback = metatable_of, traceback
for _, name in pairs { 'string', 'table', 'math', 'utf8', 'os' } do std[name] = G[name] end
std.type_of = type_of

fetch = as_function(fetch)

local function trusted(path, ...)
  return load(got(fetch, path), '=[wippy]', 'b', {})(...)
end

lib.std, lib.type_of, lib.new_type, lib.is, lib.seal, lib.later = std, type_of, new_type, is, seal, later

setmetatable(lib, { __index = function(_, name) -- what is loaded when it is first used
  if name == 'json' then
    lib.json = later(trusted('json.lua', std, opaque), function(json) trusted('json_encoder.lua', std, json) end)
  elseif name == 'msgpack' then
    lib.msgpack = later(trusted('msgpack.lua', std, lib.json), function(msgpack)
      trusted('msgpack_encoder.lua', std, lib.json, msgpack)
    end)
  elseif name == 'errors' then
    lib.errors = trusted('errors.lua', lib)
  end
  return rawget(lib, name)
end })

local call_number, in_call = 0, false
function lib.call() return in_call and call_number or nil end -- the number of the call that runs; nil while a chunk loads

-- Publish to a queue that takes it at once.
function lib.post(id, encoding, body)
  if outbox[0] > 0 and (outbox[0] == MAX_OUTBOX or outbox_size + #body > MAX_OUTBOX_SIZE
    or outbox[QUEUE] ~= id or outbox[ENCODING] ~= encoding) then send() end
  local count = outbox[0] + 1
  if count == 1 then outbox[QUEUE], outbox[ENCODING], outbox[PLACE], outbox_size = id, encoding, place, 0 end
  outbox[count], outbox_size = body, outbox_size + #body
  outbox[0] = count -- last: Python may look at any moment
end

-- A part of a module that has a file of its own.
function lib.include(name, ...) return trusted('modules/' .. name .. '.lua', std, lib, ...) end

-- The frames of a traceback that are a handler's.
function lib.readable(trace)
  local lines = {}
  for line in gmatch(trace, '\n\t([^\n]*)') do
    if not find(line, '^%[C%]') and not find(line, '^%?:') and not find(line, '^%(%.%.%.tail') then
      lines[#lines + 1] = line
    end
  end
  return lines
end

local modules = { -- that are in use
  errors = seal(function() return lib.errors.module end, 'errors'),
}

local function module(name)
  local found = modules[name]
  if not found then
    local host = setmetatable({}, { __index = function(host, key)
      local f = host_function(name, key)
      host[key] = f
      return f
    end })
    found = trusted('modules/' .. name .. '.lua', host, lib)
    if type_of(found) ~= 'userdata' then found = seal(found, name) end
    modules[name] = found
  end
  return found
end

-- 5. What handlers see.

local globals, located, copy = trusted('sandbox.lua', {
  G = G, DEAD = DEAD, is_dead = function() return dead end, has_crashed = function() return crashed end,
  overflows = overflows, end_if_over = end_if_over, caught = caught,
  rethrown = rethrown, without_python = without_python, bare = bare, sealed = sealed, look = look,
  MODE = MODE, COUNT = COUNT, die = die, follow = MODE == 'async' and as_function(follow), sethook = sethook,
  coroutine = coroutine, getinfo = getinfo, at_each_round = at_each_round,
  set_leave = function(f) leave_coroutines = f end,
  load = function(path, ...) return trusted(path, std, ...) end,
}, lib)

globals.errors = modules.errors

function globals.print(...)
  local parts = {}
  for i = 1, select('#', ...) do parts[i] = tostring((select(i, ...))) end
  module('logger').info(concat(parts, '\t'))
end

-- 7. What Python calls. Nil means that all went well; else a code comes first.

local FAILED, UNDECODABLE, KILLED, MEMORY, PARTED, UNSENT = 1, 2, 3, 4, 5, 6
local JSON <const>, BINARY <const> = 0, 2
local readable = lib.readable

local function is_error(v)
  local errors = rawget(lib, 'errors') -- before it is loaded nothing is one
  return errors ~= nil and errors.is_error(v)
end

local function on_error(e)
  if dead or rawequal(e, DEAD) then return DEAD end
  return { (located(e, 3)), traceback('', 2) }
end

local function text_of(v)
  if type(v) == 'string' or type(v) == 'number' then return tostring(v) end
  local mt = metatable_of(v)
  if mt and rawget(mt, '__tostring') then
    local ok, text = pcall(tostring, v)
    if dead then error(DEAD, 0) end
    if ok then return text end
  end
  local message = type(v) == 'table' and not opaque[mt] and rawget(v, 'message') -- as many make errors of their own
  if type(message) == 'string' then return message end
  return 'error object is a ' .. type_of(v) .. ' value'
end

local function cut(text)
  return #text <= MAX_MESSAGE and text or sub(text, 1, MAX_MESSAGE) .. '...'
end

local function failure(v, trace)
  if not is_error(v) then
    local text = text_of(v)
    return FAILED, '', text == '' and 'the handler failed with an empty text as its error' or cut(text), nil, nil, trace
  end
  local kind, message, retryable, details, stack = lib.errors.parts(v)
  if details then details = lib.json.encode(details) end
  return FAILED, kind, cut(message), retryable, details, trace == '' and concat(readable(stack), '\n') or trace
end

local function raised(e)
  if dead or rawequal(e, DEAD) then return KILLED end
  if e == OUT_OF_MEMORY then return MEMORY end
  if type(e) ~= 'table' then return FAILED, '', cut(tostring(e)), nil, nil, '' end
  local v, trace = unpack(e, 1, 2)
  return failure(v, concat(readable(trace), '\n'))
end

local function verdict(first, second)
  if type(second) == 'string' or is_error(second) then return failure(second, '') end
  if second == nil and is_error(first) then return failure(first, '') end -- an error that is returned nacks
  if first == false then return FAILED, '', 'the handler returned false', nil, nil, '' end
end

local function leave()
  in_call, doomed = false, nil
  if leave_coroutines then leave_coroutines() end
end

local function finished(ok, ...)
  leave()
  if not ok then return raised(...) end
  if ... == nil and select('#', ...) < 2 then return end
  return verdict(...)
end

local handler

-- Run the handler for one message. The benchmark's asyncio variant calls it too.
local function handle_one(encoding, body)
  if encoding ~= BINARY then
    local value, why = lib[encoding == JSON and 'json' or 'msgpack'].decode(body)
    if why then return UNDECODABLE, why end
    body = value
  end
  call_number, in_call = call_number + 1, true
  return finished(xpcall(handler, on_error, body))
end

-- Work a little on the garbage, while nobody waits for a handler to start: in the decoding of a body, where Lua's own
-- turns come as a rule, it is half of what the slowest of a hundred messages wait for.
local collecting, enough = false, 0 -- `enough`: KB from which on the next round begins

local function tidy()
  if collecting or collect('count') > enough then
    collecting = not collect('step', 0)
    if not collecting then enough = GROWTH * collect('count') end
  end
end

-- What Python gets when all went well. The benchmark's asyncio variant calls it too.
local function well(count)
  if count == 1 then tidy() end -- several have no time for it
  if outbox[0] > 0 then return UNSENT, unsent() end
end

-- Run the handler for messages: how each is encoded, in one string; nil: all are JSON; then the bodies. It ends early
-- after a failure, whose place is in `outbox[LAST]`, and before a message that has been given away.
local function handle(encodings, ...)
  local bodies = { ... }
  parted = false
  for i = 1, #bodies do
    place, outbox[LAST] = i, i -- before `parted` is read: a hook in between gives away what lies behind this place
    if parted then
      place = 0
      return PARTED
    end
    local code, kind, message, retryable, details, trace = handle_one(encodings and byte(encodings, i) or JSON, bodies[i])
    if code then
      place = 0
      return code, kind, message, retryable, details, trace
    end
  end
  place = 0
  return well(#bodies)
end

-- Run the handler for a call from Python: arguments come as one msgpack array, the first result goes back as msgpack.
local function returned(judge, ok, ...)
  if not ok then return finished(ok, ...) end
  local code, kind, message, retryable, details, trace = judge(...)
  leave()
  if code then return code, kind, message, retryable, details, trace end
  local data, why = lib.msgpack.encode((...))
  if data == nil then return FAILED, 'Invalid', 'the result: ' .. why, false, nil, '' end
  return data
end

local function invoke(count, arguments)
  local list, why = lib.msgpack.decode(arguments)
  if why then return FAILED, 'Invalid', 'the arguments: ' .. why, false, nil, '' end -- Python's dicts may have any keys
  place = 1
  call_number, in_call = call_number + 1, true
  return returned(verdict, xpcall(handler, on_error, unpack(list, 1, count)))
end

-- The same for a call by another function, to which `false` is a value like any other.
local function invoke_nested(count, arguments)
  place = 1
  call_number, in_call = call_number + 1, true
  local function judge(_, second) return verdict(nil, second) end
  return returned(judge, xpcall(handler, on_error, unpack(lib.msgpack.decode(arguments), 1, count)))
end

-- Loading, once in a runtime's life: what only that needs goes when Python has let go of these three.
local install_foreign, define, find_handler = trusted('loading.lua', {
  load = load, getinfo = getinfo, copy = copy, globals = globals, is_dead = function() return dead end,
  modules = modules, module = module, host_function = host_function, SCALAR = SCALAR,
}, lib)

local function start(id, method)
  local function opened(ok, f)
    leave()
    if not ok then return raised(f) end
    handler = f
  end
  return opened(xpcall(find_handler, on_error, id, method))
end

collect('incremental', PAUSE, 200)
for _, name in next, { 'debug', 'io', 'os', 'package', 'python' } do package.loaded[name] = nil end
for name in next, copy(G) do G[name] = nil end
return install_foreign, define, start, handle, handle_one, well, invoke, invoke_nested, collect, outbox, tostring(main)
