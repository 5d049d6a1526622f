"""Keeps the durable record of what became of push prompts, and device tokens clean. See README."""

#: What this package is called here: `worker` in a checkout, `notiflog` installed.
NAME = __name__
