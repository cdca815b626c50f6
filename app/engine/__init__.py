"""The engine: one process that owns models and device, and the line of requests in front of it.

    Service -> Engine (line, restarts; this process) -> connection -> engine process (tasks, models, device)

The engine process is started by the application and speaks to nothing else. Requests go in and events come back as
values (`wire`): no pickle, no code.
"""
