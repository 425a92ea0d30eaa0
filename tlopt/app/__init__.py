"""The commands' work: search, confirm, judge, deliver, administer."""
