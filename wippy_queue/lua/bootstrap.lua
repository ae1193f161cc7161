-- Runs once in each runtime while all of Lua is still in sight, closes it, and returns the few closures that Python
-- keeps. Everything that a handler can reach is made here. Only scalars ever cross to Python and back.
local check, fetch, again, flush, follow, MODE, COUNT = ...

local G, debug, python = _G, debug, python
local type, error, pcall, xpcall, select, next, pairs = type, error, pcall, xpcall, select, next, pairs
local rawget, tostring, load, setmetatable = rawget, tostring, load, setmetatable
local metatable_of, sethook, gethook, traceback, getinfo =
  debug.getmetatable, debug.sethook, debug.gethook, debug.traceback, debug.getinfo
local as_function, find, gmatch = python.as_function, string.find, string.gmatch
local clock, collect, match, tointeger = os.clock, collectgarbage, string.match, math.tointeger
local running, main = coroutine.running, coroutine.running()
local byte, char, sub = string.byte, string.char, string.sub
local concat, unpack, sort = table.concat, table.unpack, table.sort

local PAUSE <const> = 130 -- percent: a thousand runtimes share the memory, garbage may not wait until the heap has doubled
local CLOCK_GATE <const> = 0.01 -- CPU seconds between two questions to Python: each one takes the interpreter lock
local FIRST_DUE <const> = 4 -- looks at coroutines, until one of them is met: see there
local MAX_HELD <const> = 32 -- coroutines
local MAX_OUTBOX <const>, MAX_OUTBOX_SIZE <const> = 64, 65536 -- messages, bytes
local MAX_MESSAGE <const> = 16384 -- bytes of an error's message that leave Lua: it goes into logs, events and headers
local OUT_OF_MEMORY <const> = 'not enough memory'

-- 1. The end of a handler: an error that nothing can catch.

local DEAD = setmetatable({}, { __metatable = false, __tostring = function() return 'killed' end })
local dead = false

local function die()
  dead = true
  sethook(die, '', 1) -- what runs while the stack unwinds, a __close for one, ends at its first instruction
  error(DEAD, 0)
end

-- Which message of a batch is in hand, 0 between the calls; and whether it is the last one that this crossing handles:
-- it may take its time, so Python has given those behind it away.
local place, parted = 0, false

-- What has been published to a queue that takes it at once, and Python does not have yet: each call of Python takes the
-- interpreter lock, and two threads that want it at the same moment pay more for it than for a quick handler. It goes
-- before Python is called for anything else, and Python takes it when the crossing has ended, however it ended. The keys
-- are numbers, so that Lua needs no memory when Python empties it.
local outbox = { [0] = 0 } -- [0]: how many bodies there are, at [1] and behind
local QUEUE <const>, ENCODING <const>, PLACE <const> = -1, -2, -3 -- of all of them; the message that the first is from
local outbox_size = 0

flush = as_function(flush) -- false: the call is over

local function send()
  if not flush(place) then die() end
end

check = as_function(check) -- whether the call is over; Python takes the chance to part a batch that has become slow

local function ask()
  if outbox[0] > 0 then send() end -- Python is going to ack the messages before this one
  parted = true
  if check(place) then die() end
end

local on_count -- the hook of the main thread
local on_coroutine_count -- of coroutines
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
  on_count, on_coroutine_count = look, look
else
  function look() end
end

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

if MODE == 'async' then
  follow = as_function(follow)
  function on_coroutine_count()
    look()
    looks = looks + 1
    if looks >= due then
      local ok, is_over = pcall(meet)
      if ok and is_over then die() end -- else, without memory to follow it, it keeps its hook
    end
  end
end

local function watched(co)
  if MODE ~= 'off' then sethook(co, on_coroutine_count, '', COUNT) end
  return co
end

-- One instruction may take milliseconds, such as one that joins strings of many megabytes, and a thousand of them
-- seconds. But they make garbage: after each round of the collector the thread that runs is looked at, out of turn.
local function look_soon()
  sethook(on_coroutine_count, '', COUNT)
  on_coroutine_count()
end

local SENTINEL = {}
function SENTINEL.__gc(sentinel)
  local co, is_main = running()
  if MODE == 'count' or not (is_main or met[co]) then sethook(dead and die or look_soon, '', 1) end
  setmetatable(sentinel, SENTINEL) -- for the next round
end

if MODE ~= 'off' then
  sethook(on_count, '', MODE == 'count' and COUNT or 1000000000)
  setmetatable({}, SENTINEL)
end

-- The hook itself fails in a loop at the limit of the C stack, so nothing may catch an overflow and go on there, nor put
-- another error in its place. `doomed` is the overflow that ends the call.
local doomed

local function overflows(e)
  if type(e) == 'string' and (find(e, 'stack overflow', 1, true) or e == 'error in error handling') then
    doomed = doomed or e
    return true
  end
  return false
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

local json -- the codec; nil until somebody needs it
local opaque = {} -- metatables of values whose type is "userdata"
local sealed = {} -- metatable of a read-only proxy -> the table behind it

local function type_of(v)
  local t = type(v)
  if t == 'table' then
    local mt = metatable_of(v)
    if mt and opaque[mt] then return 'userdata' end
  end
  return t
end

local function new_type(name, methods, metamethods)
  local mt = { __index = methods, __name = name, __metatable = false }
  mt.__tostring = function() return name end
  mt.__newindex = function(_, key) error('cannot set ' .. tostring(key) .. ' of ' .. name .. ': it is read-only', 2) end
  mt.__len = function() error('attempt to get length of a ' .. name .. ' value', 2) end
  for key, f in pairs(metamethods or {}) do mt[key] = f end
  opaque[mt] = true
  if json then json.opaque[mt] = name end
  return mt
end

local function is(v, mt)
  return type(v) == 'table' and metatable_of(v) == mt
end

local function seal(t, what)
  local mt = { __index = t, __name = what, __metatable = false }
  mt.__newindex = function(_, key) error(what .. ' is read-only: cannot set ' .. tostring(key), 2) end
  mt.__len = function() return #t end
  sealed[mt] = t
  return setmetatable({}, mt)
end

-- The table that a raw operation of a handler is to work on.
local function bare(t, operation)
  if type(t) ~= 'table' then
    error("bad argument #1 to '" .. operation .. "' (table expected, got " .. (t == nil and 'no value' or type(t)) .. ')', 3)
  end
  local mt = metatable_of(t)
  if mt then
    if opaque[mt] then error("bad argument #1 to '" .. operation .. "' (table expected, got userdata)", 3) end
    return sealed[mt] or t
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
local function results(ok, a, b, c, d, ...)
  if ok then return a, b, c, d, ... end
  if ok == nil then die() end
  if a == nil then error(OUT_OF_MEMORY, 0) end
  return nil, lib.errors.new(a, b, c, d and lib.json.decode(d))
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

-- A function of Python that gives its results, or nil and an errors value.
local function expose(py)
  local f = as_function(py)
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

local function trusted(code, ...)
  return load(code, '=[wippy]', 'b', {})(...)
end

lib.std, lib.type_of, lib.new_type, lib.is, lib.seal = std, type_of, new_type, is, seal
fetch = expose(fetch)
setmetatable(lib, { __index = function(_, name) -- the codecs, when they are first used
  if name == 'json' then
    json = trusted(fetch('json.lua'), std)
    for mt in next, opaque do json.opaque[mt] = mt.__name end
    lib.json = json
  elseif name == 'msgpack' then
    lib.msgpack = trusted(fetch('msgpack.lua'), std, lib.json)
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
function lib.include(name) return trusted(fetch('modules/' .. name .. '.lua'), std, lib) end

lib.errors = trusted(fetch('errors.lua'), lib)

local modules = { errors = seal(lib.errors.module, 'errors') }

local function install(name, code, ...)
  local host = {}
  for i = 1, select('#', ...), 2 do
    local key, py = select(i, ...)
    host[key] = expose(py)
  end
  local module = trusted(code, host, lib)
  modules[name] = type_of(module) == 'userdata' and module or seal(module, name)
end

-- A module whose functions a user wrote in Python: arguments and results are plain data.
local function install_foreign(name, ...)
  local functions = {}
  for i = 1, select('#', ...), 2 do
    local key, py = select(i, ...)
    local f = expose(py)
    functions[key] = function(...)
      local count, parts = select('#', ...), {}
      if count > 15 then return nil, lib.errors.new(name .. '.' .. key .. ': more than 15 arguments', 'Invalid') end
      parts[1] = char(0x90 + count)
      for j = 1, count do
        local data, why = lib.msgpack.encode((select(j, ...)))
        if data == nil then return nil, lib.errors.new(name .. '.' .. key .. ': argument ' .. j .. ': ' .. why, 'Invalid') end
        parts[j + 1] = data
      end
      local data, err = f(concat(parts))
      if err then return nil, err end
      local value, why = lib.msgpack.decode(data)
      if why then return nil, lib.errors.new(name .. '.' .. key .. ': the result: ' .. why, 'Internal', false) end
      return value
    end
  end
  modules[name] = seal(functions, name)
end

-- 5. What handlers see.

local globals, located, copy = trusted(fetch('sandbox.lua'), {
  G = G, DEAD = DEAD, is_dead = function() return dead end, has_crashed = function() return crashed end,
  overflows = overflows, end_if_over = end_if_over, caught = caught,
  rethrown = rethrown, without_python = without_python, bare = bare, sealed = sealed, watched = watched, look = look,
  load = function(path) return trusted(fetch(path), std) end,
}, lib)

globals.errors = modules.errors

function globals.print(...)
  local parts = {}
  for i = 1, select('#', ...) do parts[i] = tostring((select(i, ...))) end
  modules.logger.info(concat(parts, '\t'))
end

-- 6. The function and its libraries.

local units = {} -- id -> what Python has told of it
local loading = {} -- ids, outermost first

local function words(text)
  local list = {}
  for word in gmatch(text, '%S+') do list[#list + 1] = word end
  return list
end

-- modules: names; imports: alias and id in turn; both separated by spaces.
local function define(id, text, chunk_name, module_names, imports)
  local unit = { text = text, chunk_name = chunk_name, modules = {}, imports = {}, declared = module_names }
  for _, name in next, words(module_names) do unit.modules[name] = true end
  local list = words(imports)
  for i = 1, #list, 2 do
    unit.imports[list[i]] = list[i + 1]
    unit.declared = unit.declared .. ' ' .. list[i]
  end
  units[id] = unit
end

local load_unit

local function require_for(id, unit)
  return function(name)
    local target = unit.imports[name]
    if target then return load_unit(target) end
    if unit.modules[name] then return modules[name] or error("module '" .. name .. "' is not available here", 2) end
    local declared = concat(words(unit.declared), ', ')
    error("module '" .. tostring(name) .. "' is not declared for " .. id .. ' (declared: '
      .. (declared == '' and 'none' or declared) .. ')', 2)
  end
end

local function compile(id)
  local unit = units[id]
  local env = copy(globals)
  env._G, env.require = env, require_for(id, unit)
  local chunk, why = load(unit.text, '=' .. unit.chunk_name, 't', env)
  if not chunk then error(why, 0) end
  unit.text = nil
  return chunk
end

function load_unit(id)
  local unit = units[id]
  if unit.value ~= nil then return unit.value end
  for i, other in next, loading do
    if other == id then error('import cycle: ' .. concat(loading, ' -> ', i) .. ' -> ' .. id, 3) end
  end
  loading[#loading + 1] = id
  unit.chunk = unit.chunk or compile(id)
  local ok, value = pcall(unit.chunk)
  loading[#loading] = nil
  if dead or not ok then error(value, 0) end
  if value == nil then value = true end
  unit.value = value
  return value
end

-- 7. What Python calls. Nil means that all went well; else a code comes first.

local FAILED, UNDECODABLE, KILLED, MEMORY, PARTED = 1, 2, 3, 4, 5
local JSON <const>, BINARY <const> = 0, 2
local is_error, parts_of, readable = lib.errors.is_error, lib.errors.parts, lib.errors.readable

local function on_error(e)
  if dead or e == DEAD then return DEAD end
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
  return 'error object is a ' .. type_of(v) .. ' value'
end

local function cut(text)
  return #text <= MAX_MESSAGE and text or sub(text, 1, MAX_MESSAGE) .. '...'
end

local function failure(v, trace)
  if not is_error(v) then return FAILED, '', cut(text_of(v)), nil, nil, trace end
  local kind, message, retryable, details, stack = parts_of(v)
  if details then details = lib.json.encode(details) end
  return FAILED, kind, cut(message), retryable, details, trace == '' and concat(readable(stack), '\n') or trace
end

local function raised(e)
  if dead or e == DEAD then return KILLED end
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
  looks, due = 0, FIRST_DUE
  if held > 0 then let_go() end
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

-- Run the handler for messages: how each is encoded, in one string; nil: all are JSON; then the bodies. It ends early
-- after a failure, whose place `position` tells, and before a message that has been given away.
local last = 0

local function handle(encodings, ...)
  local bodies = { ... }
  parted = false
  for i = 1, #bodies do
    place, last = i, i -- before `parted` is read: a hook in between gives away what lies behind this place
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
end

local function position() return last end

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

-- Load the function's chunk and find its handler.
local function find_handler(id, method)
  local chunk = compile(id)
  local value = chunk()
  if type(value) == 'function' then return value end
  local line = 0
  for at in next, getinfo(chunk, 'L').activelines or {} do line = at > line and at or line end
  local function refuse(why) error(units[id].chunk_name .. ':' .. line .. ': ' .. why, 0) end
  if type_of(value) ~= 'table' then
    refuse('expected the chunk to return a function, or a table that holds one; it returns '
      .. (value == nil and 'nothing' or 'a ' .. type_of(value)))
  end
  if method == nil then refuse('the chunk returns a table, so the entry must name one of its functions as `method`') end
  local f = value[method]
  if type(f) == 'function' then return f end
  local names = {}
  for name, member in next, value do
    if type(member) == 'function' then names[#names + 1] = tostring(name) end
  end
  sort(names)
  refuse("the table that the chunk returns has no function '" .. method .. "' (it has: "
    .. (#names == 0 and 'none' or concat(names, ', ')) .. ')')
end

local function start(id, method)
  local function opened(ok, f)
    leave()
    if not ok then return raised(f) end
    handler = f
    collect()
  end
  return opened(xpcall(find_handler, on_error, id, method))
end

collect('incremental', PAUSE, 200)
for _, name in next, { 'debug', 'io', 'os', 'package', 'python' } do package.loaded[name] = nil end
for name in next, copy(G) do G[name] = nil end
return install, install_foreign, define, start, handle, handle_one, position, invoke, invoke_nested, collect,
  outbox, tostring(main)
