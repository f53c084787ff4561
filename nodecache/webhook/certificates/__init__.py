"""The webhook's certificates, kept by its replicas in one Secret and one webhook configuration."""
