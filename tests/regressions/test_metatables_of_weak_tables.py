"""A metatable that came after another one was taken off was freed while in use: the process died."""

from __future__ import annotations

import subprocess
import sys

SOURCE = """
return function()
  local anchor = {} for i = 1, 200000 do anchor[i] = {} end
  for _ = 1, 3 do
    local ts = {}
    for i = 1, 2000 do
      local mt = {}
      ts[i] = setmetatable({}, mt)
      mt.__mode = 'kv'
    end
    for i = 1, 2000 do
      for j = 1, 200 do local g = {j} end
      setmetatable(ts[i], nil)
      setmetatable(ts[i], {__index = {v = i}})
    end
    for j = 1, 500000 do local g = {j} end
    for i = 1, 2000 do if ts[i].v ~= i then return 'freed' end end
  end
  return 'fine'
end
"""

PROGRAM = f"""
from wippy_queue import Engine
with Engine.from_entries([dict(name="f", kind="function.lua", source={SOURCE!r})]) as engine:
    print(engine.call("app:f", timeout=30))
"""


def test_a_metatable_is_held_by_a_table_that_had_another_one_before() -> None:
    process = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert (process.returncode, process.stdout) == (0, "fine\n"), process.stderr[-2000:]
