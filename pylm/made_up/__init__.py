"""Made-up languages whose best possible loss is known exactly, so that a tiny model's loss can be judged."""
