"""Names of the default points that every study is compared with."""

PROBE_LABEL = "linear probe"
LINEAR_LABEL = "linear classifier"
PLAIN_LABEL = "plain fine-tuning"
KEPT_LABEL = "fine-tuning with kept statistics"  # of the pretrained batch-norm layers
SCRATCH_LABEL = "training from scratch"  # plain fine-tuning without pretrained weights
