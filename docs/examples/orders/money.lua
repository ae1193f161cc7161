-- Amounts are whole cents: no rounding, no floats.
local money = {}

-- Return the total of an order's lines, or nil and an error.
function money.total(lines)
    local total = 0
    for number, line in ipairs(lines or {}) do
        if math.type(line.cents) ~= "integer" or math.type(line.quantity) ~= "integer" or line.quantity < 1 then
            return nil, errors.new({
                message = "line " .. number .. " needs whole cents and a quantity of 1 or more",
                kind = errors.INVALID,
                retryable = false,
            })
        end
        total = total + line.cents * line.quantity
    end
    return total
end

function money.format(cents)
    return string.format("%d.%02d EUR", cents // 100, cents % 100)
end

return money
