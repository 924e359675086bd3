"""Speed, memory and fidelity, measured beside mergekit and the naive way."""
