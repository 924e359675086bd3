"""The verdict on a merge: intervals, paired comparison, the gate's rules and their sentence."""
