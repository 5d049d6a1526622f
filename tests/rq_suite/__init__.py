"""RQ's own tests, with the draining worker in the place of RQ's."""
