"""Services: their states, the order in which they start and stop, and what happens when one fails."""

from wippy_queue.supervision.health import Health, assess
from wippy_queue.supervision.supervisor import ServiceStatus, State, Supervisor

__all__ = ["Health", "ServiceStatus", "State", "Supervisor", "assess"]
