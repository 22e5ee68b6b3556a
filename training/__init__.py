"""Profiles and outcomes in, models out: the middle floor of Weibing."""
