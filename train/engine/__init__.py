"""What a run computes and keeps: the compiled step, the stages of a run, and checkpoints."""
