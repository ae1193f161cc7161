-- An order comes in: price it and have the customer told.
local logger = require("logger")
local money = require("money")
local queue = require("queue")

local function take_order(order)
    local total, err = money.total(order.lines)
    if err then
        return nil, err  -- not retryable: the order goes to shop:refused at once
    end

    local ok, publish_err = queue.publish("shop:mails", {
        to = order.customer,
        subject = "Order " .. order.id,
        text = "Thank you. You pay " .. money.format(total) .. ".",
    }, {correlation_id = order.id})
    if not ok then
        return nil, publish_err
    end

    logger:info("order taken", {order = order.id, total = total})
    return total
end

return take_order
