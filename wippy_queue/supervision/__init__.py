"""Services: their states, the order in which they start and stop, and what happens when one fails."""

from wippy_queue.supervision.supervisor import ServiceStatus, State, Supervisor

__all__ = ["ServiceStatus", "State", "Supervisor"]
