-- ARGV: token. The owner ends; what it holds goes back to where it stood, uncounted. Returns {DONE}.
local ids, places = everything_held(ARGV[1])
put_back(ARGV[1], ids, places)
forget_owner(ARGV[1])
if #ids > 0 then wake(false) end
return {DONE}
