"""From the options of a run to what the loop works with; `train.setup.prepare` has the way from top to bottom."""
