"""Tells new pods to ask nodecache first: an admission webhook for clusters without CEL policies."""
