"""`holdpay top`. Only ``command`` is loaded at the start: grpc comes with the first screen."""
