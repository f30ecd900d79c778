"""From chats in files to packed batches on the device."""
