"""The work behind the commands: search, confirm, judge, export, administer."""
