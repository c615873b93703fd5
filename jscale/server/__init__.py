"""The endpoints: gateway, router, clients, the local cluster."""
