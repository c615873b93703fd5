"""One worker runs sequences: scheduler, pages, sampler, stage executor."""
