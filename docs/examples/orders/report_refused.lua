-- What could not be taken ends here, with the reason in its headers.
local logger = require("logger")
local money = require("money")
local queue = require("queue")

local function report_refused(order)
    local message = queue.message()
    logger:error("order refused", {
        order = order.id,
        reason = message:header("x_dead_letter_reason"),
        error = message:header("x_dead_letter_error"),
        total = money.total(order.lines) or "unknown",
    })
end

return report_refused
