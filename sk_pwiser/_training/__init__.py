"""Tensors become a fitted network: batches, criterion, net, optimiser and the loop."""
