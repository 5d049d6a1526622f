"""Keeps the durable record of what became of push prompts, and device tokens clean. See docs/."""

#: What this package is called here: `worker` in a checkout, `notiflog` installed.
NAME = __name__
