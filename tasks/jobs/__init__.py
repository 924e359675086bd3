"""Jobs: one merge of one training run each, claimed by one process at a time and recorded in a ledger."""
