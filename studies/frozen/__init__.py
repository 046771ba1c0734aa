"""Frozen models adapted: boundaries, reprogramming, guided dropout, and samplers of sequences."""
