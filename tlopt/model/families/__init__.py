"""Where each library's networks are divided into blocks: the only place that knows layer names."""
