"""What asyncio needs around one operation: it ends though its caller left; many run at once."""
