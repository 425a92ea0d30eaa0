"""Names of the default points that every study is compared with."""

PROBE_LABEL = "linear probe"
LINEAR_LABEL = "linear classifier"
PLAIN_LABEL = "plain fine-tuning"
KEPT_LABEL = "fine-tuning with kept statistics"  # of the pretrained batch-norm layers
PARTLY_LABEL = "partly frozen network"  # lower blocks frozen, the upper ones fresh
SCRATCH_LABEL = "training from scratch"  # plain fine-tuning without pretrained weights

LABELS = (PROBE_LABEL, LINEAR_LABEL, PLAIN_LABEL, KEPT_LABEL, PARTLY_LABEL, SCRATCH_LABEL)
