"""Attribute-based access control.

`policy.py` is a declared policy, `conditions.py` what it may ask, `guard.py` decides; the values that everybody sees
(Actor, Scope, SecurityContext) are in `wippy_queue/access.py`.
"""

from __future__ import annotations

from wippy_queue.security.conditions import OPERATORS, Condition
from wippy_queue.security.guard import Guard
from wippy_queue.security.policy import DeclaredPolicy

__all__ = ["OPERATORS", "Condition", "DeclaredPolicy", "Guard"]
