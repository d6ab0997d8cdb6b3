"""Bytes to crops: storage, sample order, decoding and augmentation. Never masks, networks or Ray."""
