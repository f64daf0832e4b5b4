"""Ranks: how they start, meet, form groups, and agree or stop together."""
