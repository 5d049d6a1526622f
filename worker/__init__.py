"""notiflog: the record of what became of each push prompt, kept by RQ workers."""
