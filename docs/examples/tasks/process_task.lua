-- The work itself: a function from a task to a result, or to nil and an error.
local logger = require("logger")
local queue = require("queue")

local actions = {}

function actions.process(task)
    logger.info("Done", {task_id = task.id, data = task.data})
    return "processed " .. tostring(task.data)
end

-- Fails on the first delivery, as a busy server would, and succeeds when the message comes again.
function actions.fail_once(task)
    local message = queue.message()
    if message and message:header("attempts") == 0 then
        return nil, errors.new({message = "the server is busy", kind = errors.UNAVAILABLE, retryable = true})
    end
    return actions.process(task)
end

local function process_task(task)
    local action = actions[task.action]
    if not action then
        return nil, errors.new({message = "unknown action " .. tostring(task.action), kind = errors.INVALID})
    end
    return action(task)
end

return process_task
