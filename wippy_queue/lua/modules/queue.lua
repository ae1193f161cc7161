local host, lib = ...
local std = lib.std
local type, next, tostring, setmetatable = std.type, std.next, std.tostring, std.setmetatable
local utf8_len, concat, huge = std.utf8.len, std.table.concat, std.math.huge
local type_of = lib.type_of

local function new_error(...) return lib.errors.new(...) end

local EMPTY <const> = { ['null'] = true, ['{}'] = true, ['[]'] = true, ['\x80'] = true, ['\x90'] = true, ['\xc0'] = true }

local function invalid(message)
  return nil, new_error(message, 'Invalid', false)
end

local function is_id(id)
  return type(id) == 'string' and id ~= ''
end

-- By queue id, for queues do not change while an engine lives: the codec; and whether it takes messages at once.
local encodings, at_once = {}, {}

-- Give the body as bytes and how it is encoded, or nil and an error.
local function encode(id, data)
  if type(data) == 'string' and not utf8_len(data) then return data, 'binary' end
  local encoding, quick = encodings[id], nil
  if not encoding then
    encoding, quick = host.encoding(id)
    if not encoding then return nil, quick end
    encodings[id], at_once[id] = encoding, quick
  end
  local body, why = lib[encoding].encode(data)
  if body == nil then return invalid('queue.publish: the data: ' .. why) end
  if EMPTY[body] then return invalid('queue.publish: the data must not be empty') end
  return body, encoding
end

-- Give the headers as JSON, and the names of those that cannot travel; or nil, nil and an error.
local function encode_headers(headers)
  if headers == nil then return nil, nil end
  if type_of(headers) ~= 'table' then
    return nil, nil, new_error('queue.publish: the headers must be a table, got ' .. type_of(headers), 'Invalid', false)
  end
  local kept, dropped = {}, {}
  for key, v in next, headers do
    local kind = type(v)
    local finite = kind == 'number' and v == v and v ~= huge and v ~= -huge
    if type(key) == 'string' and (finite or kind == 'string' or kind == 'boolean') then
      kept[key] = v
    else
      dropped[#dropped + 1] = tostring(key)
    end
  end
  local names = #dropped > 0 and concat(dropped, ', ') or nil
  if next(kept) == nil then return nil, names end
  local text, why = lib.json.encode(kept)
  if text == nil then return nil, nil, new_error('queue.publish: the headers: ' .. why, 'Invalid', false) end
  return text, names
end

local queue = {}

function queue.publish(id, data, headers)
  if not is_id(id) then return invalid('queue.publish: the id of the queue must be text that is not empty') end
  if data == nil then return invalid('queue.publish: there is no data') end
  local header_text, dropped, err = encode_headers(headers)
  if err then return nil, err end
  local body, encoding = encode(id, data)
  if body == nil then return nil, encoding end
  if at_once[id] and headers == nil then
    lib.post(id, encoding, body)
    return true
  end
  return host.publish(id, body, encoding, header_text, dropped)
end

function queue.info(id)
  if not is_id(id) then return invalid('queue.info: the id of the queue must be text that is not empty') end
  local count, ready, in_flight, delayed, consumers = host.info(id)
  if count == nil and type_of(ready) == 'userdata' then return nil, ready end
  return { message_count = count, ready = ready, in_flight = in_flight, delayed = delayed, consumer_count = consumers }
end

-- The message in hand ------------------------------------------------------------------------------------------------

local CALL, ID, HEADERS = {}, {}, {} -- private keys
local methods = {}
local Message = lib.new_type('queue.message', methods)

function queue.message()
  local id, err = host.id()
  if err then return nil, err end
  return setmetatable({ [CALL] = lib.call(), [ID] = id }, Message)
end

-- A method that works as long as the handler that the message belongs to runs.
local function method(name, f)
  methods[name] = function(message, ...)
    if not lib.is(message, Message) then return invalid('msg:' .. name .. '() is called with a colon') end
    if message[CALL] ~= lib.call() then return invalid('released: the handler of this message has returned') end
    return f(message, ...)
  end
end

local function headers_of(message)
  local text = message[HEADERS]
  if not text then
    text = host.headers()
    std.rawset(message, HEADERS, text)
  end
  return lib.json.decode(text)
end

method('id', function(message) return message[ID] end)
method('header', function(message, key) return headers_of(message)[key] end)
method('headers', headers_of)
method('ack', function() return host.settle(true) end)
method('nack', function() return host.settle(false) end)

return queue
