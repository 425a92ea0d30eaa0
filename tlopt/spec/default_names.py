"""What the points are called that every study is measured against."""

PROBE_LABEL = "linear probe"
PLAIN_LABEL = "plain fine-tuning"
SCRATCH_LABEL = "training from scratch"  # what plain fine-tuning is without weights to start from
