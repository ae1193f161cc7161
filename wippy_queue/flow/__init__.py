"""The life of a message, one file a step.

1. `publisher.py`: id, defaults, headers, policy, codec; then ``driver.publish``.
2. `feeder.py`: a thread takes deliveries from ``subscription.receive`` and puts them into the buffer.
3. `prefetch.py`: the bounded ``queue.Queue`` between the feeder and the workers.
4. `worker.py`: a thread takes a delivery, runs the handler, and passes the outcome on.
5. `settle.py`: outcome -> ack, retry with backoff, release, dead letter or parking: the one place that decides.

Beside the steps: `burial.py` knows where messages go that no handler will get, `walk.py` takes messages from a queue
for whoever is no consumer of it.
"""
