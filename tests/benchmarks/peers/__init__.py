"""Systems that are measured beside ours: a module each, with how it enqueues and how its worker is started.

Settings are those that its manual offers for throughput, with delivery at least once where it has that.
Threads are 8, where their number can be set. Enqueueing is not measured.
"""
