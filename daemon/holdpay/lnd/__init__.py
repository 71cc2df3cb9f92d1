"""The user's LND over grpc.aio: the adapter behind ``ports.LightningNode``. Start reading at ``node``."""
