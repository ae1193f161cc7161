-- `mail` is Python: main.py registers it. What raises there arrives here as nil and an error.
local mail = require("mail")

local function send_mail(letter)
    return mail.send(letter.to, letter.subject, letter.text)
end

return send_mail
