"""What a model and its training cost, before they are spent: parameters, operations, memory, time. No torch here."""
